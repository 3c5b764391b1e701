"""Native tensors of foreign ones, each made when asked for; what does not fit is listed by name.

Uses the same tables as the way out. Knows no files.
"""

import re
from collections.abc import Mapping

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.foreign.later import other_model
from vitpipe.stages.convert.foreign.weights import ForeignWeights
from vitpipe.stages.convert.formats.common import Named, Pixels, readings
from vitpipe.stages.convert.formats.torchvision import unfold
from vitpipe.stages.convert.links import PATCHES, Link, Made, each_of, foreign_shapes, inward
from vitpipe.stages.convert.numbers import Array, Arrays, ReadArray, Shape, checked_source
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.shapes import difference, parameter_shapes

_LINES_SHOWN = 12
_GREY = (0.299, 0.587, 0.114)


def links_of(format: ForeignFormat, settings: ModelSettings) -> list[Link]:
    """All links that a file of such a model has."""
    return fitting(readings()[format].links(settings), settings)


def fitting(links: list[Link], settings: ModelSettings) -> list[Link]:
    """Those of the model's own tensors, without what is only written."""
    shapes = parameter_shapes(settings)
    return [link for link in links if set(link.native) <= shapes.keys() and (link.native or link.to_native)]


def native_reader(named: Named, foreign: ForeignWeights) -> tuple[dict[str, Shape], ReadArray]:
    """Shapes of all native tensors in the model's order, and what makes one of the file's.

    Another normalisation of images is folded into the patch projection. Errors: UsageError listing missing (-), unknown
    (+) and other (!) tensors.
    """
    asked, shapes = f"convert the weights {foreign.uri}", parameter_shapes(foreign.settings)
    links = fitting(named.reading.links(foreign.settings), foreign.settings)
    arrays = _in_colour(named) if foreign.channels == 1 else named.arrays
    _compare(arrays.shapes, foreign_shapes(links, shapes), asked, foreign)
    made = {one.name: one for one in inward(links)}
    if foreign.is_folded:
        made |= {one.name: one for one in _folded(made, foreign.pixels)}

    def read(name: str) -> Array:
        one = made[name]
        return np.ascontiguousarray(one.make(*(arrays.read(source) for source in one.sources)))

    return shapes, checked_source(read, asked)


def _compare(found: Mapping[str, Shape], wanted: Mapping[str, Shape], asked: str, foreign: ForeignWeights) -> None:
    if lines := difference(found, wanted):
        shown = "; ".join(lines[:_LINES_SHOWN])
        more = f"; and {len(lines) - _LINES_SHOWN} more" if len(lines) > _LINES_SHOWN else ""
        found_lines = f"its tensors are not those of the model they seem to be: {shown}{more}"
        if others := other_model(lines):
            raise UsageError(asked, f"it has {others}, models here have not: {shown}{more}", "name another model")
        (one, *several) = foreign.located.tensors
        if not several and (shard := re.search(r"-(\d+)-of-(\d+)\.", one)):
            do = f"it is file {int(shard[1])} of {int(shard[2])}: name the folder with all of them and their index"
            raise UsageError(asked, found_lines, do)
        raise UsageError(asked, found_lines, "name a file whose tensors are all of one plain Vision Transformer")


def _in_colour(named: Named) -> Arrays:
    """A kernel of grey images as one of colours whose weighted sum is grey, as Pillow makes it (ITU-R 601)."""
    marks = named.reading.landmarks
    axis = 1 if marks.patch_axes[0] == 0 else 2

    def read(name: str, layer: int | None = None) -> Array:
        array = named.arrays.read(name, layer)
        if name != marks.patch:
            return array
        shares = np.array(_GREY, np.float64).reshape([3 if place == axis else 1 for place in range(4)])
        return (array * shares).astype(np.float32)

    shapes = dict(named.arrays.shapes)
    shapes[marks.patch] = tuple(3 if place == axis else size for place, size in enumerate(shapes[marks.patch]))
    return Arrays(shapes, read, named.arrays.all_bf16)


def _folded(made: Mapping[str, Made], pixels: Pixels) -> list[Made]:
    """The patch projection as one of images in [-1, 1], which needs both of its tensors for either."""
    weight, bias = (made[name] for name in PATCHES)
    split = len(weight.sources)

    def both(*read: Array) -> tuple[Array, Array]:
        return unfold(weight.make(*read[:split]), bias.make(*read[split:]), pixels)

    return each_of(PATCHES, (*weight.sources, *bias.sources), both)
