"""A source as somebody may add one: lines `name class grey` of a text file, each a square of that grey. For tests."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from vitpipe.stages.ingest.sources.source_settings import SourceCount, SourceSettings, Splits
from vitpipe.stages.settings import Place

if TYPE_CHECKING:
    from vitpipe.stages.images.header import BadImage
    from vitpipe.stages.ingest.listing import Item, Listing
    from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory


class ShadesSource(SourceSettings):
    """Squares of one grey, named in a text file."""

    kind: Literal["shades"]
    file: Annotated[str, Place()]
    """The text file."""

    @property
    def location(self) -> str:
        """The text file."""
        return self.file

    @property
    def makes_bytes(self) -> bool:
        """True: the squares are encoded here."""
        return True

    def open(self, splits: Splits) -> "Shades":
        """The lines, not yet read."""
        return Shades(self.file)

    def count(self, splits: Splits) -> SourceCount:
        """All lines."""
        listing = self.open(splits).listing()
        return SourceCount(len(listing.items), 80.0, num_classes=len(listing.classes), class_names=listing.classes)

    def is_there(self) -> bool:
        """Whether the file is."""
        return Path(self.file).is_file()

    def text_digests(self) -> dict[str, str]:
        """None."""
        return {}

    def files_now(self, was: "Inventory") -> "FilesNow":
        """The one file, if it is there."""
        from vitpipe.stages.ingest.sources.inventory import FilesNow

        return FilesNow(Shades(self.file).files())


@dataclass(frozen=True)
class Shades:
    """Satisfies `opened.Source`."""

    file: str

    @property
    def costly(self) -> bool:
        """No."""
        return False

    def listing(self) -> "Listing":
        """One image a line."""
        from vitpipe.stages.ingest.listing import Item, Items, Listing

        rows = sorted(line.split() for line in Path(self.file).read_text().splitlines())
        classes = tuple(sorted({label for _, label, _ in rows}))
        return Listing(Items(Item(f"{name}-{grey}", (classes.index(label),)) for name, label, grey in rows), classes)

    def inventory(self, listing: "Listing") -> "Inventory":
        """The one file."""
        return self.files()

    def files(self) -> "Inventory":
        """The file as it is now."""
        from vitpipe.stages.ingest.sources.inventory import Inventory
        from vitpipe.stages.sighting import time_mark

        there = [os.stat(self.file)] if os.path.isfile(self.file) else []
        return Inventory.of((Path(self.file).name, state.st_size, time_mark(state)) for state in there)

    def reads(self, items: "Sequence[Item]") -> "Iterator[bytes | BadImage]":
        """One by one."""
        return map(self.read, items)

    def read(self, item: "Item") -> bytes:
        """A PNG of 8 x 8."""
        from PIL import Image

        file = io.BytesIO()
        Image.new("L", (8, 8), int(item.name.rpartition("-")[2])).save(file, "PNG")
        return file.getvalue()
