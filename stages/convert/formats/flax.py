"""What Google's two formats share, both npz files of JAX code: an encoder's names but for those of submodules' numbers,
and the dialects that such files come in.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.landmarks import Landmarks
from vitpipe.stages.convert.links import Link, conv, dense, output_kernel, same, stacked_biases, stacked_kernels
from vitpipe.stages.convert.numbers import Array, Arrays, Shape
from vitpipe.stages.model_settings import ModelSettings

EPS = 1e-6  # flax.linen.LayerNorm; neither vision_transformer nor big_vision sets another
_KERNEL, _STACKED = "embedding/kernel", "Transformer/encoderblock/"
_PREFIXES = ("", "params/", "params/img/", "opt/target/")
"""What big_vision, vision_transformer and their readers have before the names of an image model."""


class Naming(NamedTuple):
    """Where the two layouts differ in names."""

    prefix: str
    attention: str
    mlp: str
    norm2: str


def landmarks(naming: Naming, positions: str) -> Landmarks:
    """Those that both have, with the position table's name."""
    return Landmarks(
        patch=f"{naming.prefix}embedding/kernel",
        patch_axes=(3, 0),
        token=f"{naming.prefix}cls",
        positions=f"{naming.prefix}{positions}",
        block=f"{naming.prefix}Transformer/encoderblock_{{}}/",
        hidden=f"{naming.mlp}/Dense_0/bias",
        head=f"{naming.prefix}head/bias",
        representation=f"{naming.prefix}pre_logits/bias",
        query=f"{naming.attention}/query/bias",
        stems=(f"{naming.prefix}conv_root/kernel",),
        unit=r"(?:params/|resnet/)?block(\d+)/unit(\d+)/",  # counted from 1
    )


def npz_format(
    name: ForeignFormat,
    links: common.LinksOf,
    limits: Callable[[ModelSettings], list[str]],
    claim: Callable[[Arrays, Collection[str], str], common.Named | None],
    landmarks: Landmarks,
    consumer: str,
    untabled: Literal["sincos2d", "none"],
) -> common.WeightsFormat:
    """One of Google's formats, of what differs between them."""
    return common.WeightsFormat(
        name=name,
        file=common.NPZ,
        contents=links,
        limits=limits,
        unsaid=_gelu_unsaid,
        header=lambda about: {},
        companions=lambda about: {},
        pixels=common.HALF,
        consumer=consumer,
        reading=common.Reading(
            claim=claim,
            links=links,
            landmarks=landmarks,
            gelu="tanh",
            norm_eps=EPS,
            untabled=(untabled,),
            is_pixels_certain=True,
            companions=(),
            describe=lambda content, asked: None,
        ),
    )


def _gelu_unsaid(settings: ModelSettings) -> str | None:
    """The files hold arrays alone, and both codes compute the tanh GELU."""
    if settings.family == "resnet" or settings.gelu == "tanh":
        return None
    return "the file cannot say that its GELU is the exact one (erf): Google's own code would compute tanh"


def encoder_links(settings: ModelSettings, naming: Naming) -> list[Link]:
    """All tensors but class token, positions and pooling head."""
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
            *norm(f"{ours}.norm1", f"{theirs}/LayerNorm_0"),
            *projections(f"{ours}.attn.qkv", attention, ("query", "key", "value"), heads),
            *output(f"{ours}.attn.proj", attention, heads),
            *norm(f"{ours}.norm2", f"{theirs}/{naming.norm2}"),
            *mlp(f"{ours}.mlp", f"{theirs}/{naming.mlp}"),
        ]
    links += norm("norm", f"{prefix}Transformer/encoder_norm")
    if settings.representation != "none":
        links += dense_layer("pre_logits", f"{prefix}pre_logits")
    return [*links, *(dense_layer("head", f"{prefix}head") if settings.classes else [])]


def projections(ours: str, theirs: str, names: tuple[str, ...], heads: int) -> list[Link]:
    """Kernels and biases of queries, keys or values that are rows of one tensor here."""
    kernels, biases = (tuple(f"{theirs}/{name}/{part}" for name in names) for part in ("kernel", "bias"))
    return [stacked_kernels(f"{ours}.weight", kernels, heads), stacked_biases(f"{ours}.bias", biases, heads)]


def output(ours: str, theirs: str, heads: int) -> list[Link]:
    """The projection behind attention."""
    return [output_kernel(f"{ours}.weight", f"{theirs}/out/kernel", heads), same(f"{ours}.bias", f"{theirs}/out/bias")]


def mlp(ours: str, theirs: str) -> list[Link]:
    """Both layers of a block's MLP."""
    return [*dense_layer(f"{ours}.fc1", f"{theirs}/Dense_0"), *dense_layer(f"{ours}.fc2", f"{theirs}/Dense_1")]


def dense_layer(ours: str, theirs: str) -> list[Link]:
    """A dense layer's kernel and bias."""
    return [dense(f"{ours}.weight", f"{theirs}/kernel"), same(f"{ours}.bias", f"{theirs}/bias")]


def norm(ours: str, theirs: str) -> list[Link]:
    """A norm's scale and bias."""
    return [same(f"{ours}.weight", f"{theirs}/scale"), same(f"{ours}.bias", f"{theirs}/bias")]


def _stem(stages: tuple[int, ...], prefix: str) -> list[Link]:
    """A hybrid's convolutions, units counted from 1."""
    backbone = "patch_embed.backbone"
    root = f"{backbone}.stem" if stages else backbone
    links = [conv(f"{root}.conv.weight", f"{prefix}conv_root/kernel"), *norm(f"{root}.norm", f"{prefix}gn_root")]
    for stage, units in enumerate(stages):
        for unit in range(units):
            ours, theirs = f"{backbone}.stages.{stage}.blocks.{unit}", f"{prefix}block{stage + 1}/unit{unit + 1}"
            if unit == 0:
                links.append(conv(f"{ours}.downsample.conv.weight", f"{theirs}/conv_proj/kernel"))
                links += norm(f"{ours}.downsample.norm", f"{theirs}/gn_proj")
            for number in (1, 2, 3):
                links.append(conv(f"{ours}.conv{number}.weight", f"{theirs}/conv{number}/kernel"))
                links += norm(f"{ours}.norm{number}", f"{theirs}/gn{number}")
    return links


def dialect(arrays: Arrays, asked: str) -> tuple[Arrays, tuple[str, ...], bool] | None:
    """An encoder's arrays by the names that the original layout has them: without what stands before these, layers
    unstacked, old norms of hybrids flattened; notes; and whether no library knows what stands before. None where there
    is no encoder.

    UsageError where there are several.
    """
    prefixes = sorted({name.removesuffix(_KERNEL) for name in arrays.shapes if name.endswith(_KERNEL)}, key=len)
    if not prefixes:
        return None
    mine = [prefix for prefix in prefixes if any(name.startswith(f"{prefix}Transformer/") for name in arrays.shapes)]
    if len(mine) != 1:
        found = f"{len(mine)} Vision Transformers in it, below {', '.join(map(repr, mine or prefixes)) or 'no prefix'}"
        do = f"say which: config.source.prefix, such as {mine[-1]!r}" if mine else "name a file of one"
        raise UsageError(asked, found, do)
    prefix = mine[0]
    inside = {name.removeprefix(prefix): name for name in arrays.shapes if name.startswith(prefix)}
    left_out = len(arrays.shapes) - len(inside)
    notes: tuple[str, ...] = (f"{left_out} arrays outside {prefix} were left out",) if left_out else ()
    if any(name.startswith(_STACKED) for name in inside):
        notes += ("layers were stacked along a leading axis",)
    return _unstacked(_flat(arrays, inside)), notes, prefix not in _PREFIXES


def is_original(names: Iterable[str]) -> bool:
    """Whether they are vision_transformer's, whose attention has another number than big_vision's."""
    return any("MultiHeadDotProductAttention_1/" in name for name in names)


def _flat(arrays: Arrays, real: Mapping[str, str]) -> Arrays:
    """The same arrays by other names, sizes of one before the channels of a norm taken away (vision_transformer's
    old hybrids have them)."""
    found = common.renamed(arrays, real)
    old_norms = {name for name in real if re.search(r"(^|/)gn[^/]*/(scale|bias)$", name)}

    def read(name: str, layer: int | None = None) -> Array:
        array = found.read(name, layer)
        return array.reshape(-1) if name in old_norms else array

    flat = {name: shape[-1:] if name in old_norms else shape for name, shape in found.shapes.items()}
    return Arrays(flat, read, arrays.all_bf16)


def _unstacked(arrays: Arrays) -> Arrays:
    """Each layer by its own name where all stand in one array (big_vision's scan)."""
    shapes: dict[str, Shape] = {}
    parts: dict[str, tuple[str, int]] = {}
    for name, shape in arrays.shapes.items():
        if not name.startswith(_STACKED):
            shapes[name] = shape
            continue
        for layer in range(shape[0] if shape else 0):
            each = f"{_STACKED[:-1]}_{layer}/{name.removeprefix(_STACKED)}"
            shapes[each], parts[each] = shape[1:], (name, layer)

    def read(name: str, layer: int | None = None) -> Array:
        return arrays.read(*parts[name]) if name in parts else arrays.read(name, layer)

    return Arrays(shapes, read, arrays.all_bf16)
