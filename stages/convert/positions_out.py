"""Position tables for formats that know them only as one learned table (1, T, D), the class token's row first."""

import numpy as np

from vitpipe.stages.convert.links import Link, same
from vitpipe.stages.convert.numbers import Array
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.sincos import sincos_2d


def position_link(settings: ModelSettings, foreign: str) -> Link:
    """The native positions as one table; what is computed from axes or sines cannot be told apart again.

    Positions `none` become zeros, which is the same function. Relative ones have no such table: `refuse` comes first.
    """
    if settings.position == "learned1d":
        return same("pos_embed", foreign)

    def table(*axes_GD: Array) -> tuple[Array]:
        if axes_GD:
            grid_1ND = _joined(*axes_GD)
        elif settings.position == "sincos2d":
            grid_1ND = sincos_2d(settings.grid, settings.sizes.width)[None]
        else:
            grid_1ND = np.zeros((1, settings.grid**2, settings.sizes.width), np.float32)
        return (below_zeros(grid_1ND) if settings.pool == "cls" else grid_1ND,)

    axes = ("pos_embed_x", "pos_embed_y") if settings.position == "learned2d" else ()
    return Link(axes, (foreign,), table, None)


def below_zeros(grid_1ND: Array) -> Array:
    """The same rows behind one of zeros: the class token's."""
    return np.pad(grid_1ND, ((0, 0), (1, 0), (0, 0)))


def _joined(x_GD: Array, y_GD: Array) -> Array:
    """As `stages.vit.positions.join_axes`, which training goes through."""
    columns_GGD = np.broadcast_to(x_GD[None], (len(y_GD), *x_GD.shape))
    rows_GGD = np.broadcast_to(y_GD[:, None], (len(y_GD), len(x_GD), y_GD.shape[1]))
    joined_GGD = np.concatenate([columns_GGD, rows_GGD], axis=2)
    return joined_GGD.reshape(1, -1, joined_GGD.shape[2])
