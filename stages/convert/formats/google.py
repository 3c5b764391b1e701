"""vision_transformer's format (AugReg's too): an npz of a ViT or hybrid, pooled by class token or mean; of a ResNet
BiT's released layout, which timm and big_vision read.
"""

from collections.abc import Collection
from dataclasses import replace

from vitpipe.stages.convert.formats import common, flax
from vitpipe.stages.convert.links import Link, conv, position_link, rearranged, same
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import ResNet

ORIGINAL = flax.Naming("", "MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2")
_POSITIONS = "Transformer/posembed_input/pos_embedding"
_KERNEL = "standardized_conv2d/kernel"
_LANDMARKS = replace(
    flax.landmarks(ORIGINAL, _POSITIONS),
    resnet=f"resnet/root_block/{_KERNEL}",
    resnet_axis=-1,
    resnet_heads=("resnet/head/conv2d/bias",),
)


def google_links(settings: ModelSettings) -> list[Link]:
    """All tensors of any model without relative positions and attention pooling."""
    if settings.resnet is not None:
        return _bit(settings, settings.resnet)
    token = [same("cls_token", "cls")] if settings.pool == "cls" else []
    return [*token, position_link(settings, _POSITIONS), *flax.encoder_links(settings, ORIGINAL)]


def _bit(settings: ModelSettings, resnet: ResNet) -> list[Link]:
    """BiT's layout, whose head is a 1x1 convolution."""
    links = [conv("stem.conv.weight", f"resnet/root_block/{_KERNEL}")]
    for stage, units in enumerate(resnet.blocks):
        for unit in range(units):
            ours, theirs = f"stages.{stage}.blocks.{unit}", f"resnet/block{stage + 1}/unit{unit + 1:02d}"
            if unit == 0:
                links.append(conv(f"{ours}.downsample.conv.weight", f"{theirs}/a/proj/{_KERNEL}"))
            for number, letter in enumerate("abc", start=1):
                links += _group_norm(f"{ours}.norm{number}", f"{theirs}/{letter}/group_norm")
                links.append(conv(f"{ours}.conv{number}.weight", f"{theirs}/{letter}/{_KERNEL}"))
    links += _group_norm("norm", "resnet/group_norm")
    if settings.classes:
        kernel = "resnet/head/conv2d/kernel"  # (1, 1, R, K) of a dense one (K, R)
        links.append(rearranged("head.weight", kernel, lambda w_KR: w_KR.T[None, None], lambda w_11RK: w_11RK[0, 0].T))
        links.append(same("head.bias", "resnet/head/conv2d/bias"))
    return links


def _group_norm(ours: str, theirs: str) -> list[Link]:
    return [same(f"{ours}.weight", f"{theirs}/gamma"), same(f"{ours}.bias", f"{theirs}/beta")]


def _limits(settings: ModelSettings) -> list[str]:
    if settings.family == "resnet":
        return []
    found = [*common.relative_positions(settings), *common.other_epsilon(settings, flax.EPS)]
    found += common.later_parts(settings)
    if settings.pool == "map":
        found.append("an attention-pooling (map) head: google_big_vision holds one")
    return found


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    if _LANDMARKS.resnet in arrays.shapes:
        return common.Named("google", arrays)
    found = flax.dialect(arrays, asked)
    return common.Named("google", *found) if found and flax.is_original(found[0].shapes) else None


_CONSUMER = "vitpipe.stages.convert.consumers:timm_npz"
FORMAT = flax.npz_format("google", google_links, _limits, _claim, _LANDMARKS, _CONSUMER, "none")
