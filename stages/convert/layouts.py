"""Which tensors each format has, in order, and how each comes from native ones."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.convert.config import Format
from stages.convert.source import Tensors
from stages.convert.timm_config import timm_architecture
from stages.vit.config import ModelSettings
from stages.vit.positions import join_axes, sincos_2d

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Target:
    """One tensor of a format: its name and shape there, and the native tensors it is made of."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    make: Callable[..., Tensor]


def layout(name: Format, source: Tensors) -> list[Target]:
    """All tensors of a format in the order they are written, which follows the native order."""
    return {"native": _native, "timm": _timm}[name](source)


def metadata(name: Format, settings: ModelSettings) -> dict[str, str]:
    """What the file's own header says about it."""
    return {"format": "pt"} | ({"architecture": timm_architecture(settings)} if name == "timm" else {})


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _native(source: Tensors) -> list[Target]:
    return [Target(name, shape, (name,), _same) for name, shape in source.shapes.items()]


def _timm(source: Tensors) -> list[Target]:
    """Native names are timm's; only positions that timm knows as one learned table are computed."""
    settings, targets = source.settings, _native(source)
    shape = (1, settings.tokens, settings.sizes.width)

    def table(*axes: Tensor) -> Tensor:
        grid_1ND = join_axes(*axes) if axes else sincos_2d(settings.grid, settings.sizes.width)[None]
        return F.pad(grid_1ND, (0, 0, 1, 0)) if settings.pool == "cls" else grid_1ND

    if settings.position == "learned2d":
        axes = ("pos_embed_x", "pos_embed_y")
        rest = [target for target in targets if target.name not in axes]
        return [Target("pos_embed", shape, axes, table), *rest]
    if settings.position == "sincos2d":
        return [Target("pos_embed", shape, (), table), *targets]
    return targets
