"""Native tensors of foreign ones, each made when asked for; what does not fit is listed by name.

Uses the same tables as the way out. Knows no files.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.foreign.naming import Named
from vitpipe.stages.convert.foreign.weights import Foreign
from vitpipe.stages.convert.formats.described import Triple
from vitpipe.stages.convert.formats.google import google_big_vision_links, google_links
from vitpipe.stages.convert.formats.timm import timm_links
from vitpipe.stages.convert.formats.torchvision import torchvision_links, unfold
from vitpipe.stages.convert.links import Link, Made, foreign_shapes, inward, same, weight_and_bias
from vitpipe.stages.convert.names_huggingface import huggingface_links
from vitpipe.stages.convert.numbers import Array, Shape
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.shapes import difference, parameter_shapes

_LINES_SHOWN = 12
_PATCHES = ("patch_embed.proj.weight", "patch_embed.proj.bias")


def links_of(format: ForeignFormat, settings: ModelSettings) -> list[Link]:
    """All links that a file of such a model has."""
    shapes = parameter_shapes(settings)
    tables: Mapping[str, Callable[[ModelSettings], list[Link]]] = {
        "timm": timm_links,
        "huggingface": _huggingface,
        "torchvision": _torchvision,
        "google": google_links,
        "google_big_vision": google_big_vision_links,
    }
    links = tables[format](settings) if format in tables else [same(name, name) for name in shapes]
    return [link for link in links if set(link.native) <= shapes.keys() and (link.native or link.to_native)]


def native_reader(named: Named, foreign: Foreign) -> tuple[dict[str, Shape], Callable[[str], Array]]:
    """Shapes of all native tensors in the model's order, and what makes one of the file's.

    Another normalisation of images is folded into the patch projection. Errors: UsageError listing missing (-), unknown
    (+) and other (!) tensors.
    """
    asked, shapes = f"convert the weights {foreign.uri}", parameter_shapes(foreign.settings)
    links = links_of(named.format, foreign.settings)
    _compare(named.arrays.shapes, foreign_shapes(links, shapes), asked)
    made = {one.name: one for one in inward(links)}
    if foreign.is_folded:
        made |= _folded(made, (foreign.mean, foreign.std))

    def read(name: str) -> Array:
        one = made[name]
        return np.ascontiguousarray(one.make(*(named.arrays.read(source) for source in one.sources)))

    return shapes, read


def _huggingface(settings: ModelSettings) -> list[Link]:
    """The pooler of a ViTModel is what the paper has between token and head (its conversion says pre_logits)."""
    pooler = weight_and_bias("pre_logits", "vit.pooler.dense") if settings.representation != "none" else []
    return [*huggingface_links(settings), *pooler]


def _torchvision(settings: ModelSettings) -> list[Link]:
    """With the patch projection as it stands: how images are normalised is known, and folded below."""
    links: list[Link] = []
    for link in torchvision_links(settings):
        links += weight_and_bias("patch_embed.proj", "conv_proj") if link.native == _PATCHES else [link]
    return links


def _compare(found: Mapping[str, Shape], wanted: Mapping[str, Shape], asked: str) -> None:
    lines = difference(found, wanted)
    if lines:
        shown = "; ".join(lines[:_LINES_SHOWN])
        more = f"; and {len(lines) - _LINES_SHOWN} more" if len(lines) > _LINES_SHOWN else ""
        raise UsageError(
            asked, f"its tensors are not those of the model they seem to be: {shown}{more}",
            "fetch the whole file, or name one of the architecture",
        )  # fmt: skip


def _folded(made: Mapping[str, Made], normalisation: tuple[Triple, Triple]) -> dict[str, Made]:
    """The patch projection as one of images in [-1, 1], which needs both of its tensors for either."""
    both = [made[name] for name in _PATCHES]
    split = len(both[0].sources)

    def make(index: int) -> Callable[..., Array]:
        def one(*sources: Array) -> Array:
            weight, bias = both[0].make(*sources[:split]), both[1].make(*sources[split:])
            return unfold(weight, bias, *normalisation)[index]

        return one

    sources: Sequence[str] = (*both[0].sources, *both[1].sources)
    return {name: Made(name, tuple(sources), make(index)) for index, name in enumerate(_PATCHES)}
