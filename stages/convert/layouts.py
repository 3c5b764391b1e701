"""Which tensors each format has, in order, and how each comes from native ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.formats.google import google_big_vision_links, google_links
from vitpipe.stages.convert.formats.timm import timm_links
from vitpipe.stages.convert.formats.torchvision import torchvision_links
from vitpipe.stages.convert.links import Link, foreign_shapes, outward, same
from vitpipe.stages.convert.names_huggingface import huggingface_links
from vitpipe.stages.convert.numbers import Array
from vitpipe.stages.convert.tensors import Tensors
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.shapes import parameter_shapes


@dataclass(frozen=True)
class Target:
    """One tensor of a format: its name and shape there, and the native tensors it is made of."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    make: Callable[..., Array]
    place: int
    """Of its last source among the native tensors: the formats are written side by side in that order."""


def links_of(name: Format, settings: ModelSettings) -> list[Link]:
    """How the format's tensors and native ones are made of each other."""
    return _LINKS[name](settings)


def layout(name: Format, source: Tensors) -> list[Target]:
    """All tensors of a format in the order they are written, which follows the native order.

    ValueError when a native tensor would be left out: `refuse` has said before what a format cannot hold.
    """
    links, places = links_of(name, source.settings), {each: place for place, each in enumerate(source.shapes)}
    left_out = source.shapes.keys() - {each for link in links for each in link.native}
    if left_out:
        raise ValueError(f"{name} has no place for {', '.join(sorted(left_out))}")
    shapes = foreign_shapes(links, source.shapes)
    targets = [
        Target(
            made.name, shapes[made.name], made.sources, made.make, max((places[one] for one in made.sources), default=0)
        )
        for made in outward(links)
    ]
    return sorted(targets, key=lambda target: target.place)


def _native(settings: ModelSettings) -> list[Link]:
    return [same(name, name) for name in parameter_shapes(settings)]


_LINKS: Mapping[Format, Callable[[ModelSettings], list[Link]]] = {
    "native": _native,
    "timm": timm_links,
    "huggingface": huggingface_links,
    "torchvision": torchvision_links,
    "google": google_links,
    "google_big_vision": google_big_vision_links,
}
