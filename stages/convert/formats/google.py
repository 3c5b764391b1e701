"""The tensors of Google's JAX code beside ours: vision_transformer's (AugReg's too) and big_vision's.

The two differ in the numbers of the submodules, and in the class token: big_vision adds positions before it, so that
its token is the sum of ours and its position's row, and its table has no such row.
"""

from typing import NamedTuple

from vitpipe.stages.convert.links import (
    Link,
    conv,
    dense,
    output_kernel,
    same,
    stacked_biases,
    stacked_kernels,
)
from vitpipe.stages.convert.numbers import Array
from vitpipe.stages.convert.positions_out import below_zeros, position_link
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.variants import ResNet


class Naming(NamedTuple):
    """Where the two layouts differ in names."""

    prefix: str
    attention: str
    mlp: str
    norm2: str


ORIGINAL = Naming("", "MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2")
BIG_VISION = Naming("params/", "MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1")


def google_links(settings: ModelSettings) -> list[Link]:
    """vision_transformer's layout of a ViT or hybrid, pooled by class token or mean; of a ResNet BiT's."""
    if settings.resnet is not None:
        return _bit(settings, settings.resnet)
    token = [same("cls_token", "cls")] if settings.pool == "cls" else []
    positions = position_link(settings, "Transformer/posembed_input/pos_embedding")
    return [*token, positions, *_rest(settings, ORIGINAL)]


def google_big_vision_links(settings: ModelSettings) -> list[Link]:
    """big_vision's layout, attention pooling included."""
    links = _rest(settings, BIG_VISION)
    positions = position_link(settings, "params/pos_embedding")
    if settings.pool != "cls":
        return [positions, *links, *(_map_head(settings) if settings.pool == "map" else [])]
    return [_token_and_table(positions), *links]


def _token_and_table(positions: Link) -> Link:
    """(cls_token, positions) as a token that holds its position's row, and a table without that row."""

    def to_foreign(token_11D: Array, *own: Array) -> tuple[Array, Array]:
        (table_1TD,) = positions.to_foreign(*own)
        return token_11D + table_1TD[:, :1], table_1TD[:, 1:]

    def to_native(token_11D: Array, table_1ND: Array) -> tuple[Array, Array]:
        return token_11D, below_zeros(table_1ND)

    learned = positions.to_native is not None
    names = ("params/cls", "params/pos_embedding")
    return Link(("cls_token", *positions.native), names, to_foreign, to_native if learned else None, exact=False)


def _rest(settings: ModelSettings, naming: Naming) -> list[Link]:
    prefix, heads = naming.prefix, settings.sizes.heads
    links = [
        *(_stem(settings.stem, prefix) if settings.stem is not None else []),
        conv("patch_embed.proj.weight", f"{prefix}embedding/kernel"),
        same("patch_embed.proj.bias", f"{prefix}embedding/bias"),
    ]
    for layer in range(settings.sizes.layers):
        ours, theirs = f"blocks.{layer}", f"{prefix}Transformer/encoderblock_{layer}"
        attention = f"{theirs}/{naming.attention}"
        links += [
            *_norm(f"{ours}.norm1", f"{theirs}/LayerNorm_0"),
            *_projections(f"{ours}.attn.qkv", attention, ("query", "key", "value"), heads),
            *_output(f"{ours}.attn.proj", attention, heads),
            *_norm(f"{ours}.norm2", f"{theirs}/{naming.norm2}"),
            *_mlp(f"{ours}.mlp", f"{theirs}/{naming.mlp}"),
        ]
    links += _norm("norm", f"{prefix}Transformer/encoder_norm")
    if settings.representation != "none":
        links += _dense("pre_logits", f"{prefix}pre_logits")
    return [*links, *(_dense("head", f"{prefix}head") if settings.classes else [])]


def _stem(stages: tuple[int, ...], prefix: str) -> list[Link]:
    """A hybrid's convolutions, units counted from 1."""
    backbone = "patch_embed.backbone"
    root = f"{backbone}.stem" if stages else backbone
    links = [conv(f"{root}.conv.weight", f"{prefix}conv_root/kernel"), *_norm(f"{root}.norm", f"{prefix}gn_root")]
    for stage, units in enumerate(stages):
        for unit in range(units):
            ours, theirs = f"{backbone}.stages.{stage}.blocks.{unit}", f"{prefix}block{stage + 1}/unit{unit + 1}"
            if unit == 0:
                links.append(conv(f"{ours}.downsample.conv.weight", f"{theirs}/conv_proj/kernel"))
                links += _norm(f"{ours}.downsample.norm", f"{theirs}/gn_proj")
            for number in (1, 2, 3):
                links.append(conv(f"{ours}.conv{number}.weight", f"{theirs}/conv{number}/kernel"))
                links += _norm(f"{ours}.norm{number}", f"{theirs}/gn{number}")
    return links


def _bit(settings: ModelSettings, resnet: ResNet) -> list[Link]:
    """BiT's released layout of a ResNet, which timm and big_vision read; the head is a 1x1 convolution there."""
    kernel = "standardized_conv2d/kernel"
    links = [conv("stem.conv.weight", f"resnet/root_block/{kernel}")]
    for stage, units in enumerate(resnet.blocks):
        for unit in range(units):
            ours, theirs = f"stages.{stage}.blocks.{unit}", f"resnet/block{stage + 1}/unit{unit + 1:02d}"
            if unit == 0:
                links.append(conv(f"{ours}.downsample.conv.weight", f"{theirs}/a/proj/{kernel}"))
            for number, letter in enumerate("abc", start=1):
                links += _group_norm(f"{ours}.norm{number}", f"{theirs}/{letter}/group_norm")
                links.append(conv(f"{ours}.conv{number}.weight", f"{theirs}/{letter}/{kernel}"))
    links += _group_norm("norm", "resnet/group_norm")
    if settings.classes:
        links.append(_as_convolution("head.weight", "resnet/head/conv2d/kernel"))
        links.append(same("head.bias", "resnet/head/conv2d/bias"))
    return links


def _as_convolution(native: str, foreign: str) -> Link:
    """A dense kernel (K, R) as one of a 1x1 convolution (1, 1, R, K)."""
    return Link((native,), (foreign,), lambda w_KR: (w_KR.T[None, None],), lambda w_11RK: (w_11RK[0, 0].T,))


def _group_norm(ours: str, theirs: str) -> list[Link]:
    return [same(f"{ours}.weight", f"{theirs}/gamma"), same(f"{ours}.bias", f"{theirs}/beta")]


def _map_head(settings: ModelSettings) -> list[Link]:
    ours, theirs, heads = "attn_pool", "params/MAPHead_0", settings.sizes.heads
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    return [
        same(f"{ours}.latent", f"{theirs}/probe"),
        *_projections(f"{ours}.q", attention, ("query",), heads),
        *_projections(f"{ours}.kv", attention, ("key", "value"), heads),
        *_output(f"{ours}.proj", attention, heads),
        *_norm(f"{ours}.norm", f"{theirs}/LayerNorm_0"),
        *_mlp(f"{ours}.mlp", f"{theirs}/MlpBlock_0"),
    ]


def _projections(ours: str, theirs: str, names: tuple[str, ...], heads: int) -> list[Link]:
    kernels, biases = (tuple(f"{theirs}/{name}/{part}" for name in names) for part in ("kernel", "bias"))
    return [stacked_kernels(f"{ours}.weight", kernels, heads), stacked_biases(f"{ours}.bias", biases, heads)]


def _output(ours: str, theirs: str, heads: int) -> list[Link]:
    return [
        output_kernel(f"{ours}.weight", f"{theirs}/out/kernel", heads),
        same(f"{ours}.bias", f"{theirs}/out/bias"),
    ]


def _mlp(ours: str, theirs: str) -> list[Link]:
    return [*_dense(f"{ours}.fc1", f"{theirs}/Dense_0"), *_dense(f"{ours}.fc2", f"{theirs}/Dense_1")]


def _dense(ours: str, theirs: str) -> list[Link]:
    return [dense(f"{ours}.weight", f"{theirs}/kernel"), same(f"{ours}.bias", f"{theirs}/bias")]


def _norm(ours: str, theirs: str) -> list[Link]:
    return [same(f"{ours}.weight", f"{theirs}/scale"), same(f"{ours}.bias", f"{theirs}/bias")]
