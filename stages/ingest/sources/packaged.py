"""Sources that come with installed packages: they are there wherever vitpipe is, and change with a package alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from vitpipe.stages.ingest.sources.source_settings import SourceSettings

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.images.header import BadImage
    from vitpipe.stages.ingest.listing import Item, Listing
    from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory


class PackagedSource(SourceSettings, ABC):
    """A source without files of the user: its texts alone tell whether it is what it was."""

    is_installed: ClassVar[bool] = True

    @property
    def location(self) -> str:
        """What it is, for it lies nowhere in particular."""
        return f"the {self.kind} of the installed packages"

    @property
    def makes_bytes(self) -> bool:
        """True: its images are drawn or encoded here."""
        return True

    def is_there(self) -> bool:
        """True: a package that is missing is told by whoever needs it."""
        return True

    def files_now(self, was: "Inventory") -> "FilesNow":
        """No files; the texts, whose absence is an error here: the package is not installed."""
        from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory

        return FilesNow(Inventory.of((), self.text_digests()))


class PackagedImages(ABC):
    """What a packaged source opens: a `Source` but for `costly` and `listing`."""

    def inventory(self, listing: "Listing") -> "Inventory":
        """No files of their own."""
        from vitpipe.stages.ingest.sources.inventory import Inventory

        return Inventory.of(())

    def reads(self, items: "Sequence[Item]") -> "Iterator[bytes | BadImage]":
        """One by one."""
        from vitpipe.stages.ingest.reading import one_by_one

        return one_by_one(self.read, items)

    @abstractmethod
    def read(self, item: "Item") -> bytes:
        """One image, made anew."""
