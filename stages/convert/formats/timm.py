"""timm's format: its models have our names for tensors, but for a ResNet's head and positions that are not one table.

A folder loads by `timm.create_model('local-dir:DIR', pretrained=True)`.
"""

import math
import re
from collections.abc import Collection
from typing import Any

from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.timm_files import describe
from vitpipe.stages.convert.links import Link, position_link, rearranged, same
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import PLAIN, find_variant
from vitpipe.stages.vit.shapes import parameter_shapes

LANDMARKS = common.Landmarks(
    patch="patch_embed.proj.weight",
    patch_axes=(0, 2),
    token="cls_token",
    positions="pos_embed",
    block="blocks.{}.",
    hidden="mlp.fc1.bias",
    head="head.bias",
    representation="pre_logits.bias",
    pool="attn_pool.latent",
    stems=("patch_embed.backbone.stem.conv.weight", "patch_embed.backbone.conv.weight"),
    unit=r"(?:patch_embed\.backbone\.)?stages\.(\d+)\.blocks\.(\d+)\.",
    resnet="stem.conv.weight",
    resnet_heads=("head.bias", "head.fc.bias"),
)
SIGNS = frozenset((LANDMARKS.patch, LANDMARKS.resnet))
"""Tensors any of which says that a file has these names: ours and timm's."""
_POSITIONS = ("pos_embed_x", "pos_embed_y")
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


def timm_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT, a hybrid or a ResNet without a representation layer."""
    names = parameter_shapes(settings)
    if settings.family == "resnet":
        return [_head(name) if name.startswith("head.") else same(name, name) for name in names]
    links = [same(name, name) for name in names if name not in _POSITIONS]
    if settings.position in ("learned2d", "sincos2d"):
        return [position_link(settings, "pos_embed"), *links]
    return links


def _head(name: str) -> Link:
    """A linear head (K, R) as a 1x1 convolution (K, R, 1, 1) behind timm's pooling."""
    foreign = name.replace("head.", "head.fc.")
    if name == "head.bias":
        return same(name, foreign)
    return rearranged(name, foreign, lambda w_KR: w_KR[..., None, None], lambda w_KR11: w_KR11[..., 0, 0])


def timm_limits(settings: ModelSettings) -> list[str]:
    """What of this model timm has no place for."""
    if settings.family == "resnet":
        known = f"its functions build {', '.join(_RESNETS)}"
        return [] if settings.variant in _RESNETS else [f"the ResNet {settings.variant}: {known}"]
    problems = []
    if settings.representation != "none":
        problems.append(f"the representation layer of {settings.feature_width} (pre-logits)")
    return [*problems, *common.relative_positions(settings), *common.other_epsilon(settings, _TIMM_EPS)]


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


def _crop_pct(image_px: int, before: int) -> float:
    """The share that timm divides by, rounding down, to get the side before the crop."""
    share = image_px / before
    return share if math.floor(image_px / share) == before else image_px / (before + 0.5)


def _config(about: common.About) -> bytes:
    """Content of `config.json`. Images get to the model's size as the weights' makers say, else squashed, and are
    scaled to [-1, 1]."""
    settings, resnet, way = about.settings, about.settings.family == "resnet", about.preparation
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
            "interpolation": way.interpolation,
            "crop_pct": _crop_pct(settings.image_px, way.resize_px or settings.image_px),
            "crop_mode": "center" if way.fit == "resmall_crop" else "squash",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": settings.classes,
            "pool_size": [settings.grid, settings.grid] if resnet else None,
            "first_conv": _first_conv(settings),
            "classifier": "head.fc" if resnet else "head",
        },
    }
    if about.license:
        config["pretrained_cfg"]["license"] = about.license
    said = {**about.lineage, "probabilities": about.activation}
    config["pretrained_cfg"]["notes"] = [f"{key}: {value}" for key, value in said.items()]
    if about.labels:
        config["label_names"] = list(about.labels)
        config["id2label"] = {str(number): label for number, label in enumerate(about.labels)}
    return common.json_bytes(config)


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    if SIGNS.isdisjoint(arrays.shapes):
        return None
    today = {re.sub(r"^pre_logits\.fc\.", "pre_logits.", name): name for name in arrays.shapes}  # timm before 0.9
    return common.Named("timm", common.renamed(arrays, today))


FORMAT = common.WeightsFormat(
    name="timm",
    file=common.SAFETENSORS,
    contents=timm_links,
    limits=timm_limits,
    unsaid=lambda settings: None,
    header=lambda about: about.signed({"format": "pt", "architecture": timm_architecture(about.settings)}),
    companions=lambda about: {"config.json": _config(about)},
    pixels=common.HALF,
    consumer="vitpipe.stages.convert.consumers:timm_folder",
    reading=common.Reading(
        claim=_claim,
        links=timm_links,
        landmarks=LANDMARKS,
        gelu="erf",
        norm_eps=1e-6,
        untabled=("none",),
        is_pixels_certain=False,
        companions=("config.json",),
        describe=describe,
    ),
)
