"""A sound image of the listing with what was seen in it. No torch."""

from typing import NamedTuple

from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.look.scan import SoundImage


class Image(NamedTuple):
    """A sound image of the listing with its content."""

    item: Item
    seen: SoundImage
