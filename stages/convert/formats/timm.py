"""timm's format: its models have our names for tensors, but for a ResNet's head and positions that are not one table.

A folder loads by `timm.create_model('local-dir:DIR', pretrained=True)`.
"""

import math
import re
from collections.abc import Collection
from typing import Any

from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.landmarks import Landmarks
from vitpipe.stages.convert.formats.timm_files import describe
from vitpipe.stages.convert.links import Link, biased_positions, position_link, rearranged, same, token_and_table
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import PLAIN, find_variant
from vitpipe.stages.vit.shapes import parameter_shapes

LANDMARKS = Landmarks(
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
_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant", "G": "gigantic"}
_HYBRIDS = {
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (): "vit_tiny_r_s16_p8_224",
}
"""timm's names by the stem; their encoders' sizes are replaced by `model_args`."""
_RESNETS = {"R50x1": "resnetv2_50x1_bit", "R101x1": "resnetv2_101x1_bit", "R152x2": "resnetv2_152x2_bit"}
_ACTS = {"tanh": "gelu_tanh", "quick": "quick_gelu"}
_POOL = {"cls": "token", "gap": "avg", "map": "map"}
_TIMM_EPS, _CLIP_EPS = 1e-6, 1e-5
"""Of timm/layers/norm.py LayerNorm, and of its functions for CLIP's towers; no config field changes it."""
_GATED, _CLIP = "vit_giant_patch14_dinov2", "vit_base_patch16_clip_224"
"""Functions whose MLP is gated, and whose epsilon is CLIP's; their sizes and parts are replaced by `model_args`."""


def timm_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT, a hybrid or a ResNet without a representation layer."""
    names = parameter_shapes(settings)
    if settings.family == "resnet":
        return [_head(name) if name.startswith("head.") else same(name, name) for name in names]
    special = _special(settings)
    taken = {name for link in special for name in link.native}
    return [*special, *(same(name, name) for name in names if name not in taken)]


def _special(settings: ModelSettings) -> list[Link]:
    """Tensors that have another form there: positions that are no table, or whose rows the token holds; and the bias of
    patches, which its models with a norm before the blocks have in the positions."""
    is_computed = settings.position in ("learned2d", "sincos2d")
    positions = position_link(settings, "pos_embed")
    if settings.position == "none" or not (
        is_computed or settings.pre_norm or (settings.registers and settings.has_class_token)
    ):
        return []
    if settings.registers and settings.has_class_token and not settings.no_embed_class:
        positions = token_and_table(positions, "cls_token", "pos_embed")
    if settings.pre_norm:
        return [biased_positions(positions, "patch_embed.proj.bias")]
    return [positions]


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
    if settings.rope is not None:
        problems.append(f"rotary positions ({settings.rope.kind}): its VisionTransformer has none")
    if settings.mlp_kind == "swiglu" and (settings.pool == "map" or settings.norm_eps != _TIMM_EPS):
        problems.append("a gated MLP beside attention pooling or another epsilon: no function of it has both")
    if settings.pre_norm and settings.position == "none":
        problems.append("pre_norm without positions: its patches then have no bias")
    epsilon = [] if settings.norm_eps == _CLIP_EPS else common.other_epsilon(settings, _TIMM_EPS)
    return [*problems, *common.relative_positions(settings), *epsilon]


def timm_architecture(settings: ModelSettings) -> str:
    """timm's name for the variant; for explicit sizes one whose every size `model_args` then replaces."""
    if settings.family == "resnet":
        return _RESNETS[str(settings.variant)]
    if settings.stem is not None:
        return _HYBRIDS[settings.stem]
    if settings.mlp_kind == "swiglu":
        return _GATED
    if settings.norm_eps == _CLIP_EPS:
        return _CLIP
    known = {find_variant(name).sizes: name for name in PLAIN}
    encoder, patch_px = known.get(settings.sizes, "B/16").split("/")
    return f"vit_{_SIZES[encoder]}_patch{patch_px}_224"


def timm_arguments(settings: ModelSettings) -> dict[str, Any]:
    """What `timm.create_model` is given beside the name, so that it builds this very model."""
    if settings.family == "resnet":
        return {}
    sizes = settings.sizes
    hidden = sizes.mlp * (2 if settings.mlp_kind == "swiglu" else 1)
    ratio = hidden / sizes.width
    if int(sizes.width * ratio) != hidden:  # timm computes the MLP's size back from the ratio
        ratio = (hidden + 0.5) / sizes.width
    args: dict[str, Any] = {
        "img_size": settings.image_px,
        "patch_size": sizes.patch_px,
        "embed_dim": sizes.width,
        "depth": sizes.layers,
        "num_heads": sizes.heads,
        "mlp_ratio": ratio,
        "global_pool": _POOL[settings.pool],
        "class_token": settings.has_class_token,
        "fc_norm": settings.pool_norm,  # else the norm comes before pooling, as in the authors' code
        "pos_embed": "none" if settings.position == "none" else "learn",
    }
    named = timm_architecture(settings)
    args |= _later_arguments(settings, named)
    return args | ({"act_layer": _ACTS[settings.gelu]} if settings.gelu != "erf" and named != _GATED else {})


def _later_arguments(settings: ModelSettings, function: str) -> dict[str, Any]:
    """What a plain model of the function is not given."""
    args: dict[str, Any] = {}
    if settings.layer_scale is not None or function == _GATED:
        args["init_values"] = settings.layer_scale
    if settings.registers:
        args["reg_tokens"] = settings.registers
    if _are_rows_of_patches(settings):
        args["no_embed_class"] = True
    if settings.pre_norm or function == _CLIP:
        args["pre_norm"] = settings.pre_norm
    args |= {"qk_norm": True} if settings.qk_norm else {}
    return args | ({"scale_mlp_norm": True} if settings.mlp_norm else {})


def _are_rows_of_patches(settings: ModelSettings) -> bool:
    """Whether the table there has no row but those of patches: it has none, or all tokens before them have one."""
    return settings.no_embed_class or (settings.registers > 0 and settings.position != "none")


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


READING = common.Reading(
    claim=_claim,
    links=timm_links,
    landmarks=LANDMARKS,
    gelu="erf",
    norm_eps=1e-6,
    untabled=("none",),
    is_pixels_certain=False,
    companions=("config.json",),
    describe=describe,
)
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
    reading=READING,
)
