"""timm's `config.json` for our models, and what timm has no place for. No torch."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import PLAIN, find_variant

_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant", "G": "gigantic"}
_HYBRIDS = {
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (): "vit_tiny_r_s16_p8_224",
}
"""timm's names by the stem; their encoders' sizes are replaced by `model_args`."""
_RESNETS = {"R50x1": "resnetv2_50x1_bit", "R101x1": "resnetv2_101x1_bit", "R152x2": "resnetv2_152x2_bit"}
_POOL = {"cls": "token", "gap": "avg", "map": "map"}
_TIMM_EPS = 1e-6  # timm/layers/norm.py LayerNorm; no config field changes it


def timm_problems(settings: ModelSettings) -> list[str]:
    """What of this model timm has no place for."""
    if settings.family == "resnet":
        known = f"its functions build {', '.join(_RESNETS)}"
        return [] if settings.variant in _RESNETS else [f"the ResNet {settings.variant}: {known}"]
    problems = []
    if settings.representation != "none":
        problems.append(f"the representation layer of {settings.feature_width} (pre-logits)")
    if settings.position == "relative":
        problems.append("relative positions")
    if settings.norm_eps != _TIMM_EPS:
        problems.append(f"norm_eps {settings.norm_eps:g} (its own is {_TIMM_EPS:g})")
    return problems


def timm_config(
    settings: ModelSettings,
    labels: Sequence[str],
    license: str | None = None,
    lineage: Mapping[str, str] | None = None,
) -> bytes:
    """Content of `config.json`: loads by `timm.create_model('local-dir:DIR', pretrained=True)`.

    Images are squashed to the model's size and scaled to [-1, 1], as our fine-tuning tests by default.
    """
    resnet = settings.family == "resnet"
    config: dict[str, Any] = {
        "architecture": timm_architecture(settings),
        "num_classes": settings.classes,
        "num_features": settings.feature_width,
        "global_pool": "avg" if resnet else _POOL[settings.pool],
        "model_args": timm_arguments(settings),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, settings.image_px, settings.image_px],
            "fixed_input_size": not resnet,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": settings.classes,
            "pool_size": [settings.grid, settings.grid] if resnet else None,
            "first_conv": _first_conv(settings),
            "classifier": "head.fc" if resnet else "head",
        },
    }
    if license:
        config["pretrained_cfg"]["license"] = license
    if lineage:
        config["pretrained_cfg"]["notes"] = [f"{key}: {value}" for key, value in lineage.items()]
    if labels:
        config["label_names"] = list(labels)
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    return (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode()


def timm_architecture(settings: ModelSettings) -> str:
    """timm's name for the variant; for explicit sizes one whose every size `model_args` then replaces."""
    if settings.family == "resnet":
        return _RESNETS[str(settings.variant)]
    if settings.stem is not None:
        return _HYBRIDS[settings.stem]
    known = {find_variant(name).sizes: name for name in PLAIN}
    encoder, patch_px = known.get(settings.sizes, "B/16").split("/")
    return f"vit_{_SIZES[encoder]}_patch{patch_px}_224"


def timm_arguments(settings: ModelSettings) -> dict[str, Any]:
    """What `timm.create_model` is given beside the name, so that it builds this very model."""
    if settings.family == "resnet":
        return {}
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


def _first_conv(settings: ModelSettings) -> str:
    if settings.family == "resnet":
        return "stem.conv"
    if settings.stem is None:
        return "patch_embed.proj"
    return "patch_embed.backbone.stem.conv" if settings.stem else "patch_embed.backbone.conv"
