"""Position tables for formats that know them only as one learned table (1, T, D), the class token's row first."""

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.convert.links import Link, same
from stages.vit.config import ModelSettings
from stages.vit.positions import join_axes, sincos_2d


def position_link(settings: ModelSettings, foreign: str) -> Link:
    """The native positions as one table; what is computed from axes or sines cannot be told apart again.

    Positions `none` become zeros, which is the same function. Relative ones have no such table: `refuse` comes first.
    """
    if settings.position == "learned1d":
        return same("pos_embed", foreign)

    def table(*axes_GD: Tensor) -> tuple[Tensor]:
        if axes_GD:
            grid_1ND = join_axes(*axes_GD)
        elif settings.position == "sincos2d":
            grid_1ND = sincos_2d(settings.grid, settings.sizes.width)[None]
        else:
            grid_1ND = torch.zeros(1, settings.grid**2, settings.sizes.width)
        return (F.pad(grid_1ND, (0, 0, 1, 0)) if settings.pool == "cls" else grid_1ND,)

    axes = ("pos_embed_x", "pos_embed_y") if settings.position == "learned2d" else ()
    return Link(axes, (foreign,), table, None)
