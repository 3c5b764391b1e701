"""timm's `config.json` for our models, and what timm's VisionTransformer has no place for. No torch."""

import json
from collections.abc import Sequence
from typing import Any

from stages.vit.config import ModelSettings
from stages.vit.variants import PLAIN, find_variant

_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant", "G": "gigantic"}
_POOL = {"cls": "token", "gap": "avg", "map": "map"}
_TIMM_EPS = 1e-6  # timm/layers/norm.py LayerNorm; no config field changes it


def timm_problems(settings: ModelSettings) -> list[str]:
    """What of this model timm's VisionTransformer has no place for."""
    problems = []
    if settings.representation != "none":
        problems.append(f"the representation layer of {settings.feature_width} (pre-logits)")
    if settings.position == "relative":
        problems.append("relative positions")
    if settings.norm_eps != _TIMM_EPS:
        problems.append(f"norm_eps {settings.norm_eps:g} (its own is {_TIMM_EPS:g})")
    return problems


def timm_config(settings: ModelSettings, labels: Sequence[str]) -> bytes:
    """Content of `config.json`: loads by `timm.create_model('local-dir:DIR', pretrained=True)`.

    Images are squashed to the model's size and scaled to [-1, 1], as our fine-tuning tests by default.
    """
    config: dict[str, Any] = {
        "architecture": timm_architecture(settings),
        "num_classes": settings.classes,
        "num_features": settings.sizes.width,
        "global_pool": _POOL[settings.pool],
        "model_args": _model_args(settings),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, settings.image_px, settings.image_px],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": settings.classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if labels:
        config["label_names"] = list(labels)
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    return (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode()


def timm_architecture(settings: ModelSettings) -> str:
    """timm's name for the variant; for explicit sizes one whose every size `model_args` then replaces."""
    known = {find_variant(name).sizes: name for name in PLAIN}
    encoder, patch_px = known.get(settings.sizes, "B/16").split("/")
    return f"vit_{_SIZES[encoder]}_patch{patch_px}_224"


def _model_args(settings: ModelSettings) -> dict[str, Any]:
    sizes = settings.sizes
    ratio = sizes.mlp / sizes.width
    if int(sizes.width * ratio) != sizes.mlp:  # timm computes the MLP's size back from the ratio
        ratio = (sizes.mlp + 0.5) / sizes.width
    args: dict[str, Any] = {
        "img_size": settings.image_px,
        "patch_size": sizes.patch_px,
        "embed_dim": sizes.width,
        "depth": sizes.layers,
        "num_heads": sizes.heads,
        "mlp_ratio": ratio,
        "global_pool": _POOL[settings.pool],
        "class_token": settings.pool == "cls",
        "fc_norm": False,  # the norm comes before pooling, as in the authors' code
        "pos_embed": "none" if settings.position == "none" else "learn",
    }
    return args | ({"act_layer": "gelu_tanh"} if settings.gelu == "tanh" else {})
