"""Tensors of other families of Vision Transformers by our names: DINOv2, DINOv3, CLIP, SigLIP and I-JEPA as
transformers has them, EVA-02 and DINOv3 as timm has them.

What stands apart there is one tensor here (queries, keys and values; gate and value), and a bias that a family does not
have is one of zeros. Shapes: D width, T tokens. Knows no files.
"""

import re
from collections.abc import Callable

import numpy as np

from vitpipe.stages.convert.links import Link, same
from vitpipe.stages.convert.numbers import Array, Arrays, Shape
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.shapes import parameter_shapes

Make = Callable[[], Array]
_BLOCK = r"^(blocks\.\d+\.)"
_NAMES = (
    (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings?(?:\.weight)?$", "pos_embed"),
    (r"^embeddings\.patch_embeddings?(?:\.projection)?\.(weight|bias)$", r"patch_embed.proj.\1"),
    (r"^(?:encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (_BLOCK + r"(?:attention\.attention\.|attention\.|self_attn\.)(q|k|v)(?:u\w+|ey|al\w+|_proj)\.", r"\1attn.\2."),
    (_BLOCK + r"attn\.(q|k|v)_(?:proj\.)?(weight|bias)$", r"\1attn.\2.\3"),
    (_BLOCK + r"(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", r"\1attn.proj."),
    (_BLOCK + r"layer_scale(\d)\.lambda1$", r"\1ls\2.gamma"),
    (_BLOCK + r"gamma_(\d)$", r"\1ls\2.gamma"),
    (_BLOCK + r"(?:layer_norm1|layernorm_before)\.", r"\1norm1."),
    (_BLOCK + r"(?:layer_norm2|layernorm_after)\.", r"\1norm2."),
    (_BLOCK + r"(?:mlp\.weights_in|intermediate\.dense)\.", r"\1mlp.fc1."),
    (_BLOCK + r"(?:mlp\.weights_out|mlp\.down_proj|output\.dense)\.", r"\1mlp.fc2."),
    (_BLOCK + r"mlp\.(?:gate_proj|fc1_g)\.", r"\1mlp.gate."),
    (_BLOCK + r"mlp\.(?:up_proj|fc1_x)\.", r"\1mlp.value."),
    (r"^(?:post_layernorm|layernorm)\.", "norm."),
    (r"^pre_layrnorm\.", "norm_pre."),  # written so in transformers
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_(weight|bias)$", r"attn_pool.in.\1"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
    (r"^classifier\.", "head."),
)  # fmt: skip


def as_they_are(settings: ModelSettings) -> list[Link]:
    """All tensors of a model, each by its own name on both sides."""
    return [same(name, name) for name in parameter_shapes(settings)]


def by_our_names(arrays: Arrays) -> Arrays:
    """The same numbers by our names, each made when it is read; what has none of these names keeps its own."""
    made: dict[str, tuple[Shape, Make]] = {}
    for name, shape in arrays.shapes.items():
        new = _renamed(name)
        if new == "reg_token" and not shape[-2]:  # as DINOv3's class writes none
            continue
        made[new] = (shape, lambda name=name: arrays.read(name))  # type: ignore[misc]
    _with_axes(made)
    width = made["patch_embed.proj.weight"][0][0] if "patch_embed.proj.weight" in made else 0
    for block in sorted({match[1] for name in made if (match := re.match(_BLOCK, name))}):
        _one(made, f"{block}attn.qkv.weight", [f"{block}attn.{part}.weight" for part in "qkv"], (width, width))
        _one(made, f"{block}attn.qkv.bias", [f"{block}attn.{part}.bias" for part in "qkv"], (width,))
        for part in ("weight", "bias"):
            value, gate = f"{block}mlp.value.{part}", f"{block}mlp.gate.{part}"
            if gate in made and value in made:
                _one(made, f"{block}mlp.fc1.{part}", [gate, value], made[value][0])
            elif value in made:
                made[f"{block}mlp.fc1.{part}"] = made.pop(value)
    if width and "patch_embed.proj.bias" not in made:
        made["patch_embed.proj.bias"] = _zeros((width,))
    for part in ("weight", "bias"):
        if f"attn_pool.in.{part}" in made:
            shape, read = made.pop(f"attn_pool.in.{part}")
            rows = shape[0] // 3
            made[f"attn_pool.q.{part}"] = ((rows, *shape[1:]), lambda read=read, rows=rows: read()[:rows])  # type: ignore[misc]
            made[f"attn_pool.kv.{part}"] = ((2 * rows, *shape[1:]), lambda read=read, rows=rows: read()[rows:])  # type: ignore[misc]
    shapes = {name: shape for name, (shape, _) in made.items()}
    return Arrays(shapes, lambda name, layer=None: made[name][1](), arrays.all_bf16, arrays.counters)


def without(arrays: Arrays, pattern: str) -> tuple[Arrays, list[str]]:
    """The arrays but for those whose name the pattern fits, and the names of these."""
    dropped = [name for name in arrays.shapes if re.search(pattern, name)]
    kept = {name: shape for name, shape in arrays.shapes.items() if name not in dropped}
    return Arrays(kept, arrays.read, arrays.all_bf16, arrays.counters), dropped


def _renamed(name: str) -> str:
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    return name


def _with_axes(made: dict[str, tuple[Shape, Make]]) -> None:
    """A token of (D) and a table of (T, D) with the leading axes of one."""
    for name in ("cls_token", "pos_embed"):
        if name in made and len(made[name][0]) < 3:
            shape, read = made[name]
            full = (1,) * (3 - len(shape)) + shape
            made[name] = (full, lambda read=read, full=full: read().reshape(full))  # type: ignore[misc]


def _one(made: dict[str, tuple[Shape, Make]], name: str, parts: list[str], shape: Shape) -> None:
    """Parts below each other as one tensor; those that are not there as zeros, where they are biases."""
    if name in made or (name.endswith("weight") and not all(part in made for part in parts)):
        return
    found = [made.pop(part, _zeros(shape)) for part in parts]
    rows = sum(each[0][0] for each in found)
    made[name] = ((rows, *shape[1:]), lambda: np.concatenate([read() for _, read in found]))


def _zeros(shape: Shape) -> tuple[Shape, Make]:
    return shape, lambda: np.zeros(shape, np.float32)
