"""How a format's tensors and native ones are made of each other: one link for each group that belongs together.

A format is a list of links; the way out and the way in read the same ones. Shapes: D width, H heads,
E = D/H, M and N any two sizes, C channels. Numbers are NumPy's, moved as views where that can be. Knows no files.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vitpipe.stages.convert.numbers import Array, Shape
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.sincos import sincos_2d

Many = tuple[Array, ...]
PATCHES = ("patch_embed.proj.weight", "patch_embed.proj.bias")
"""The native patch projection."""


@dataclass(frozen=True)
class Link:
    """Native tensors, the foreign ones that hold the same numbers, and the way in both directions.

    `to_foreign` takes the native tensors in the order of `native` and gives those of `foreign`; `to_native` goes back.
    """

    native: tuple[str, ...]
    foreign: tuple[str, ...]
    to_foreign: Callable[..., Many]
    to_native: Callable[..., Many] | None
    """None where the format holds something computed that is not a parameter here, such as a sine table."""
    exact: bool = True
    """Whether there and back gives the same bits."""


@dataclass(frozen=True)
class Made:
    """One tensor of the other side: its name, what it is made of, and how."""

    name: str
    sources: tuple[str, ...]
    make: Callable[..., Array]


def outward(links: Iterable[Link]) -> list[Made]:
    """All foreign tensors, each from native ones."""
    return [made for link in links for made in each_of(link.foreign, link.native, link.to_foreign)]


def inward(links: Iterable[Link]) -> list[Made]:
    """All native tensors that a format holds, each from foreign ones."""
    return [made for link in links if link.to_native for made in each_of(link.native, link.foreign, link.to_native)]


def foreign_shapes(links: Iterable[Link], native: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of every foreign tensor, computed without memory for those that are native ones rearranged."""
    shapes: dict[str, Shape] = {}
    for link in links:
        made = link.to_foreign(*(np.broadcast_to(_ZERO, native[name]) for name in link.native))
        shapes |= {name: array.shape for name, array in zip(link.foreign, made, strict=True)}
    return shapes


def rearranged(native: str, foreign: str, there: Callable[[Array], Array], back: Callable[[Array], Array]) -> Link:
    """One tensor here that is one there."""
    return Link((native,), (foreign,), lambda x: (there(x),), lambda x: (back(x),))


def same(native: str, foreign: str) -> Link:
    """The tensor as it is."""
    return rearranged(native, foreign, lambda x: x, lambda x: x)


def dense(native: str, foreign: str) -> Link:
    """A dense kernel: (out, in) here, (in, out) there."""
    return rearranged(native, foreign, lambda w_NM: w_NM.T, lambda w_MN: w_MN.T)


def conv(native: str, foreign: str) -> Link:
    """A convolution's kernel: OIHW here, HWIO there."""
    return rearranged(native, foreign, lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))


def stacked(native: str, foreign: tuple[str, ...]) -> Link:
    """Projections that are rows of one tensor here, in this order, and tensors of their own there."""
    return Link((native,), foreign, lambda x: tuple(np.split(x, len(foreign))), lambda *parts: (np.concatenate(parts),))


def stacked_kernels(native: str, foreign: tuple[str, ...], heads: int) -> Link:
    """The same with one axis for the heads: rows (k D, D) here, k kernels (D, H, E) there."""
    return Link(
        (native,),
        foreign,
        lambda x: tuple(part_DD.T.reshape(len(part_DD), heads, -1) for part_DD in np.split(x, len(foreign))),
        lambda *parts: (np.concatenate([part_DHE.reshape(len(part_DHE), -1).T for part_DHE in parts]),),
    )


def stacked_biases(native: str, foreign: tuple[str, ...], heads: int) -> Link:
    """Their biases: (k D) here, k of (H, E) there."""
    return Link(
        (native,),
        foreign,
        lambda x: tuple(part_D.reshape(heads, -1) for part_D in np.split(x, len(foreign))),
        lambda *parts: (np.concatenate([part_HE.reshape(-1) for part_HE in parts]),),
    )


def output_kernel(native: str, foreign: str, heads: int) -> Link:
    """The projection behind attention: (D, D) here, (H, E, D) there."""
    return rearranged(
        native,
        foreign,
        lambda w_DD: w_DD.T.reshape(heads, -1, len(w_DD)),
        lambda w_HED: w_HED.reshape(-1, w_HED.shape[-1]).T,
    )


def weight_and_bias(native: str, foreign: str) -> list[Link]:
    """Both tensors of a torch layer under another name."""
    return [same(f"{native}.{part}", f"{foreign}.{part}") for part in ("weight", "bias")]


def position_link(settings: ModelSettings, foreign: str) -> Link:
    """The native positions as the one learned table (1, T, D) that other formats know, the class token's row first.

    What is computed from axes or sines cannot be told apart again.

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
        return (below_zeros(grid_1ND) if settings.has_class_token else grid_1ND,)

    axes = ("pos_embed_x", "pos_embed_y") if settings.position == "learned2d" else ()
    return Link(axes, (foreign,), table, None)


def token_and_table(positions: Link, token: str, table: str) -> Link:
    """(cls_token, positions) as a token that holds its position's row, and a table without that row."""

    def to_foreign(token_11D: Array, *own: Array) -> tuple[Array, Array]:
        (table_1TD,) = positions.to_foreign(*own)
        return token_11D + table_1TD[:, :1], table_1TD[:, 1:]

    def to_native(token_11D: Array, table_1ND: Array) -> tuple[Array, Array]:
        return token_11D, below_zeros(table_1ND)

    back = None if positions.to_native is None else to_native
    return Link(("cls_token", *positions.native), (token, table), to_foreign, back, exact=False)


def biased_positions(positions: Link, bias: str) -> Link:
    """The same, the bias of patches added to the rows of patches, for a format that has none."""
    table = len(positions.foreign) - 1

    def to_foreign(bias_D: Array, *own: Array) -> Many:
        *others, table_1TD = positions.to_foreign(*own)
        patches = np.full((1, table_1TD.shape[1], 1), 1, np.float32)
        patches[:, : table_1TD.shape[1] - math.isqrt(table_1TD.shape[1]) ** 2] = 0
        return (*others, table_1TD + patches * bias_D)

    def to_native(*foreign: Array) -> Many:
        assert positions.to_native is not None
        return np.zeros(foreign[table].shape[-1], np.float32), *positions.to_native(*foreign)

    back = None if positions.to_native is None else to_native
    return Link((bias, *positions.native), positions.foreign, to_foreign, back, exact=False)


def below_zeros(grid_1ND: Array) -> Array:
    """The same rows behind one of zeros: the class token's."""
    return np.pad(grid_1ND, ((0, 0), (1, 0), (0, 0)))


_ZERO = np.zeros((), np.float32)


def each_of(names: Sequence[str], sources: tuple[str, ...], make: Callable[..., Many]) -> list[Made]:
    """Tensors that `make` gives together, one by one."""
    return [Made(name, sources, lambda *read, place=place: make(*read)[place]) for place, name in enumerate(names)]


def _joined(x_GD: Array, y_GD: Array) -> Array:
    """As `stages.vit.positions.join_axes`, which training goes through."""
    columns_GGD = np.broadcast_to(x_GD[None], (len(y_GD), *x_GD.shape))
    rows_GGD = np.broadcast_to(y_GD[:, None], (len(y_GD), len(x_GD), y_GD.shape[1]))
    joined_GGD = np.concatenate([columns_GGD, rows_GGD], axis=2)
    return joined_GGD.reshape(1, -1, joined_GGD.shape[2])
