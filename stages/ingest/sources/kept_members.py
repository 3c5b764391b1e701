"""What a source has of an image besides its bytes and its class, where the config keeps it: captions, other facts.

Knows places in an item, not what the members say. No torch.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from vitpipe.stages.ingest.listing import Item

OWN_PLACES = 2
"""Numbers of a place that say where the image itself is: its file, and the byte."""

Kept = tuple[tuple[str, bytes], ...]
"""Extension and bytes of each member that one image has."""


@runtime_checkable
class KeepsMembers(Protocol):
    """A reader of images that gives their other members too. Picklable."""

    @property
    def keep(self) -> tuple[str, ...]:
        """Their extensions, in the order in which shards have them; none where nothing is kept."""

    def kept(self, items: Sequence[Item]) -> Iterator[Kept]:
        """Those of each image, in order. StageError for a file that is no longer what it was."""


def kept_places(item: Item, keep: Sequence[str]) -> list[tuple[str, int, int]]:
    """Extension, first byte and length of each member that an image has of those that are kept.

    They stand behind the image's own place, two numbers each; a byte 0 is no member's.
    """
    pairs = item.place[OWN_PLACES:]
    return [(name, pairs[2 * row], pairs[2 * row + 1]) for row, name in enumerate(keep) if pairs[2 * row]]
