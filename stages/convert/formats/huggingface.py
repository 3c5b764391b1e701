"""The JSON files and the card of a transformers folder. No torch.

Images are squashed to the model's size and scaled to [-1, 1], as our fine-tuning tests by default.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vitpipe.stages.vit.config import ModelSettings

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR
_HALF = [0.5, 0.5, 0.5]


def huggingface_config(settings: ModelSettings, labels: Sequence[str], dtype: str, sigmoid: bool = False) -> bytes:
    """Content of `config.json` for ViTForImageClassification; labels without names are called LABEL_0 and so on.

    Its pipelines take sigmoids where `problem_type` says multi-label.
    """
    sizes = settings.sizes
    names = list(labels) or [f"LABEL_{number}" for number in range(settings.classes or 0)]
    kind = {"problem_type": "multi_label_classification"} if sigmoid else {}
    return _json(
        {
            "architectures": ["ViTForImageClassification"],
            "model_type": "vit",
            "dtype": _DTYPES[dtype],
            "hidden_size": sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.mlp,
            "hidden_act": "gelu" if settings.gelu == "erf" else "gelu_pytorch_tanh",
            "hidden_dropout_prob": settings.dropout,
            "attention_probs_dropout_prob": 0.0,
            "layer_norm_eps": settings.norm_eps,
            "image_size": settings.image_px,
            "patch_size": sizes.patch_px,
            "num_channels": 3,
            "qkv_bias": True,
            "encoder_stride": sizes.patch_px,
            "id2label": {str(number): name for number, name in enumerate(names)},
            "label2id": {name: number for number, name in enumerate(names)},
            **kind,
        }
    )


def preprocessor_config(settings: ModelSettings) -> bytes:
    """Content of `preprocessor_config.json`."""
    return _json(
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": settings.image_px, "width": settings.image_px},
            "resample": _BILINEAR,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": _HALF,
            "image_std": _HALF,
        }
    )


def model_card(settings: ModelSettings, lineage: Mapping[str, str], license: str | None) -> bytes:
    """Content of `README.md`: what the hub reads from its head, and where the weights are from."""
    head = ["library_name: transformers", "pipeline_tag: image-classification", "tags: [vision, vit, vitpipe]"]
    head += [f"license: {json.dumps(license)}"] if license else []
    sizes = settings.sizes
    name = settings.variant if isinstance(settings.variant, str) else "by explicit sizes"
    lines = [
        *("---", *head, "---"),
        f"# Vision Transformer {name}",
        "",
        f"{sizes.layers} layers of width {sizes.width} with {sizes.heads} heads, patches of {sizes.patch_px} px, "
        f"images of {settings.image_px} px, {settings.classes} classes. Written by vitpipe.",
        "",
        *("```python", "from transformers import AutoImageProcessor, ViTForImageClassification", ""),
        'processor = AutoImageProcessor.from_pretrained(".")',
        *('model = ViTForImageClassification.from_pretrained(".")', "```"),
        "",
        f"Licence: {license or 'not stated'}.",
        *(["", "## Lineage", ""] if lineage else []),
        *(f"- {key}: {value}" for key, value in lineage.items()),
    ]
    return ("\n".join(lines) + "\n").encode()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
