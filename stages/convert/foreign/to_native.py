"""Native tensors of foreign ones, each made when asked for; what does not fit is listed by name.

Uses the same tables as the way out. Knows no files.
"""

from collections.abc import Mapping

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.foreign.weights import ForeignWeights
from vitpipe.stages.convert.formats.common import Named, Pixels, readings
from vitpipe.stages.convert.formats.torchvision import unfold
from vitpipe.stages.convert.links import PATCHES, Link, Made, each_of, foreign_shapes, inward
from vitpipe.stages.convert.numbers import Array, ReadArray, Shape
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.shapes import difference, parameter_shapes

_LINES_SHOWN = 12


def links_of(format: ForeignFormat, settings: ModelSettings) -> list[Link]:
    """All links that a file of such a model has."""
    shapes, links = parameter_shapes(settings), readings()[format].links(settings)
    return [link for link in links if set(link.native) <= shapes.keys() and (link.native or link.to_native)]


def native_reader(named: Named, foreign: ForeignWeights) -> tuple[dict[str, Shape], ReadArray]:
    """Shapes of all native tensors in the model's order, and what makes one of the file's.

    Another normalisation of images is folded into the patch projection. Errors: UsageError listing missing (-), unknown
    (+) and other (!) tensors.
    """
    asked, shapes = f"convert the weights {foreign.uri}", parameter_shapes(foreign.settings)
    links = links_of(named.format, foreign.settings)
    _compare(named.arrays.shapes, foreign_shapes(links, shapes), asked)
    made = {one.name: one for one in inward(links)}
    if foreign.is_folded:
        made |= {one.name: one for one in _folded(made, foreign.pixels)}

    def read(name: str) -> Array:
        one = made[name]
        return np.ascontiguousarray(one.make(*(named.arrays.read(source) for source in one.sources)))

    return shapes, read


def _compare(found: Mapping[str, Shape], wanted: Mapping[str, Shape], asked: str) -> None:
    if lines := difference(found, wanted):
        shown = "; ".join(lines[:_LINES_SHOWN])
        more = f"; and {len(lines) - _LINES_SHOWN} more" if len(lines) > _LINES_SHOWN else ""
        found_lines = f"its tensors are not those of the model they seem to be: {shown}{more}"
        raise UsageError(asked, found_lines, "fetch the whole file, or name one of the architecture")


def _folded(made: Mapping[str, Made], pixels: Pixels) -> list[Made]:
    """The patch projection as one of images in [-1, 1], which needs both of its tensors for either."""
    weight, bias = (made[name] for name in PATCHES)
    split = len(weight.sources)

    def both(*read: Array) -> tuple[Array, Array]:
        return unfold(weight.make(*read[:split]), bias.make(*read[split:]), pixels)

    return each_of(PATCHES, (*weight.sources, *bias.sources), both)
