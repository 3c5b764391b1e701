"""transformers' format: a folder that `ViTForImageClassification.from_pretrained(DIR)` loads.

Tensors have the names of its files. transformers 5 renames its modules (`vit.layers.0.attention.q_proj`) but reads and
writes files by these, as every version before it.
"""

import json
import re
from collections.abc import Collection

from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.huggingface_files import EPS, FILES, FILTERS, describe
from vitpipe.stages.convert.formats.landmarks import Landmarks
from vitpipe.stages.convert.links import Link, position_link, same, stacked, weight_and_bias
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import Preparation

_LANDMARKS = Landmarks(
    patch="vit.embeddings.patch_embeddings.projection.weight",
    patch_axes=(0, 2),
    token="vit.embeddings.cls_token",
    positions="vit.embeddings.position_embeddings",
    block="vit.encoder.layer.{}.",
    hidden="intermediate.dense.bias",
    head="classifier.bias",
    representation="vit.pooler.dense.bias",
)
_ALIASES = (
    (r"^(embeddings|encoder|layers|layernorm|pooler)\.", r"vit.\1."),  # a bare ViTModel
    (r"^vit\.layers\.", "vit.encoder.layer."),  # the names that transformers 5 has in memory
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def huggingface_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT with a class token.

    The pooler of a ViTModel is what the paper has between token and head (its conversion says pre_logits); a classifier
    of the library sees none, so it is only read.
    """
    links = [
        same("cls_token", "vit.embeddings.cls_token"),
        position_link(settings, "vit.embeddings.position_embeddings"),
        *weight_and_bias("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
    ]
    for layer in range(settings.sizes.layers):
        ours, theirs = f"blocks.{layer}", f"vit.encoder.layer.{layer}"
        for part in ("weight", "bias"):
            qkv = [f"{theirs}.attention.attention.{name}.{part}" for name in ("query", "key", "value")]
            links.append(stacked(f"{ours}.attn.qkv.{part}", tuple(qkv)))
        for native, foreign in _BLOCK.items():
            links += weight_and_bias(f"{ours}.{native}", f"{theirs}.{foreign}")
    links += weight_and_bias("norm", "vit.layernorm") + weight_and_bias("head", "classifier")
    return links + (weight_and_bias("pre_logits", "vit.pooler.dense") if settings.representation != "none" else [])


def _limits(settings: ModelSettings) -> list[str]:
    if settings.family != "vit":
        return [common.only_plain(settings, "ViTForImageClassification")]
    found = [*common.relative_positions(settings), *common.other_pooling(settings), *common.headless(settings)]
    found += common.later_parts(settings)
    if settings.representation != "none":
        found.append(f"the representation layer of {settings.feature_width}: its classifier sees no pooler")
    return found


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    if not any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in arrays.shapes):
        return None
    today: dict[str, str] = {}
    for name in arrays.shapes:
        new = name
        for pattern, replacement in _ALIASES:
            new = re.sub(pattern, replacement, new)
        today[new] = name
    pooler = [name for name in today if name.startswith("vit.pooler.")]
    if not pooler or "classifier.weight" not in today:
        return common.Named("huggingface", common.renamed(arrays, today))
    # the library's classifier sees the class token itself: a pooler beside it is never computed
    kept = common.renamed(arrays, {new: name for new, name in today.items() if new not in pooler})
    return common.Named("huggingface", kept, ("a pooler that its classifier does not use was left out",))


def _config(about: common.About) -> bytes:
    """Content of `config.json`; labels without names are called LABEL_0 and so on.

    The library's pipelines take sigmoids where `problem_type` says multi-label.
    """
    settings, sizes = about.settings, about.settings.sizes
    names = list(about.labels) or [f"LABEL_{number}" for number in range(settings.classes or 0)]
    kind = {"problem_type": "multi_label_classification"} if about.sigmoid else {}
    content = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "dtype": _DTYPES[about.dtype],
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
    }
    return common.json_bytes(content | kind, indent=2)


def _preprocessor(settings: ModelSettings, way: Preparation) -> bytes:
    """Content of `preprocessor_config.json`: brought to the model's size as the weights' makers say, else squashed, and
    scaled to [-1, 1]."""
    square, before = {"height": settings.image_px, "width": settings.image_px}, way.resize_px
    crop = {"do_center_crop": True, "crop_size": square} if before else {}
    content = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": square if not before else _before(before, way),
        "resample": FILTERS.index(way.interpolation),
        **crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(common.HALF.mean),
        "image_std": list(common.HALF.std),
    }
    return common.json_bytes(content, indent=2)


def _before(side: int, way: Preparation) -> dict[str, int]:
    return {"height": side, "width": side} if way.fit == "resize_crop" else {"shortest_edge": side}


def _card(about: common.About) -> bytes:
    """Content of `README.md`: what the hub reads from its head, and where the weights are from."""
    settings, sizes, license = about.settings, about.settings.sizes, about.license
    head = ["library_name: transformers", "pipeline_tag: image-classification", "tags: [vision, vit, vitpipe]"]
    head += [f"license: {json.dumps(license)}"] if license else []
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
        *(["", "## Lineage", ""] if about.lineage else []),
        *(f"- {key}: {value}" for key, value in about.lineage.items()),
    ]
    return ("\n".join(lines) + "\n").encode()


def _companions(about: common.About) -> dict[str, bytes]:
    return {
        "config.json": _config(about),
        "preprocessor_config.json": _preprocessor(about.settings, about.preparation),
        "README.md": _card(about),
    }


FORMAT = common.WeightsFormat(
    name="huggingface",
    file=common.SAFETENSORS,
    contents=huggingface_links,
    limits=_limits,
    unsaid=lambda settings: None,
    header=lambda about: about.signed({"format": "pt"}),
    companions=_companions,
    pixels=common.HALF,
    consumer="vitpipe.stages.convert.consumers:transformers_folder",
    reading=common.Reading(
        claim=_claim,
        links=huggingface_links,
        landmarks=_LANDMARKS,
        gelu="erf",
        norm_eps=EPS,
        untabled=(),
        is_pixels_certain=False,
        companions=FILES,
        describe=describe,
    ),
)
