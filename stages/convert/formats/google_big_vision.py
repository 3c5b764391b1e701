"""big_vision's format: an npz of a ViT or hybrid, attention pooling included.

Positions are added before the class token there, so that its token is the sum of ours and its position's row, and its
table has no such row. What it computes from sines (`posemb: sincos2d`) it keeps no table of, and refuses one.
"""

from collections.abc import Collection
from dataclasses import replace

from vitpipe.stages.convert.formats import common, flax
from vitpipe.stages.convert.links import Link, position_link, same, token_and_table
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.model_settings import ModelSettings

BIG_VISION = flax.Naming("params/", "MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1")
_POSITIONS = "pos_embedding"
_LANDMARKS = replace(flax.landmarks(BIG_VISION, _POSITIONS), pool="params/MAPHead_0/probe", token_has_row=False)


def google_big_vision_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a ViT or hybrid without relative positions."""
    links = flax.encoder_links(settings, BIG_VISION) + (_map_head(settings) if settings.pool == "map" else [])
    if settings.position == "sincos2d":
        return [*([same("cls_token", "params/cls")] if settings.pool == "cls" else []), *links]
    positions = position_link(settings, f"params/{_POSITIONS}")
    return [
        token_and_table(positions, "params/cls", f"params/{_POSITIONS}") if settings.pool == "cls" else positions,
        *links,
    ]


def _map_head(settings: ModelSettings) -> list[Link]:
    ours, theirs, heads = "attn_pool", "params/MAPHead_0", settings.sizes.heads
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    return [
        same(f"{ours}.latent", f"{theirs}/probe"),
        *flax.projections(f"{ours}.q", attention, ("query",), heads),
        *flax.projections(f"{ours}.kv", attention, ("key", "value"), heads),
        *flax.output(f"{ours}.proj", attention, heads),
        *flax.norm(f"{ours}.norm", f"{theirs}/LayerNorm_0"),
        *flax.mlp(f"{ours}.mlp", f"{theirs}/MlpBlock_0"),
    ]


def _limits(settings: ModelSettings) -> list[str]:
    if settings.family == "resnet":
        return ["a ResNet: take google, whose layout big_vision reads too"]
    found = [*common.relative_positions(settings), *common.other_epsilon(settings, flax.EPS)]
    return found + common.later_parts(settings)


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    found = flax.dialect(arrays, asked)
    if found is None or flax.is_original(found[0].shapes):
        return None
    plain, notes, is_unwrapped = found
    arrays = common.renamed(plain, {f"params/{name}": name for name in plain.shapes})
    return common.Named("google_big_vision", arrays, notes, is_unwrapped)


_CONSUMER = "vitpipe.stages.convert.consumers:big_vision_npz"
FORMAT = flax.npz_format(
    "google_big_vision", google_big_vision_links, _limits, _claim, _LANDMARKS, _CONSUMER, "sincos2d"
)
