"""A source that was opened: what can be asked of it, and in which parts its images are read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.listing import ImageReader, ImageSink, Items, Listing
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing, JoinedFiles, Listed
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.patterns import SourceFile


class Source(ImageReader, Protocol):
    """Where images come from."""

    def listing(self) -> Listing:
        """All images. UsageError when there is nothing to ingest, saying what was found."""

    def inventory(self, listing: Listing) -> Inventory:
        """The files that a part of its listing is made of, without the texts. OSError for one that is gone."""


@runtime_checkable
class StreamedSource(ImageReader, Protocol):
    """A `Source` that gives its images away one by one, and holds none of them."""

    def stream(self, images: ImageSink) -> Listing:
        """As `listing`, without the images, which `images` takes. They are the source's files, by name."""


@dataclass(frozen=True)
class SourceOfFiles(ImageReader, ABC):
    """A `Source` whose files must be opened to be listed."""

    files: Sequence[SourceFile]
    fixed: Classes | None
    """Classes that the config fixes."""

    piece: ClassVar[int] = 0
    """How many numbers of an item's place name the piece of a file that one task has to read, for it is read from its
    begin on; 0 where each image is read by itself."""

    def listing(self) -> Listing:
        """All images, the files opened one by one."""
        listed = [self.list_file(file) for file in self.files]
        return self.joined([told for _, told in listed]).whole(images for images, _ in listed)

    def inventory(self, listing: Listing) -> Inventory:
        """All files, whichever part of the listing is wanted."""
        return Inventory.of_files(self.files)

    @abstractmethod
    def known_classes(self) -> Classes | None:
        """Those that are known before rows and samples are read. UsageError as `joined`."""

    @abstractmethod
    def list_file(self, file: SourceFile) -> Listed:
        """What one file holds: names, places, sizes and labels, no bytes of images."""

    @abstractmethod
    def joined(self, parts: Sequence[FileListing]) -> JoinedFiles:
        """What they are together. UsageError when there is nothing to ingest."""


def chunks(source: Source, items: Items, most: int) -> list[range]:
    """The rows of a listing in parts for a task each: `most` together, or more where one piece has more."""
    depth = piece_of(source)
    stops = chunk_stops(items.begins(depth) if depth else np.arange(len(items)), len(items), most)
    return [range(start, stop) for start, stop in pairwise((0, *stops))]


def piece_of(source: Source) -> int:
    """`SourceOfFiles.piece`, 0 of other sources."""
    return source.piece if isinstance(source, SourceOfFiles) else 0


def chunk_stops(begins: npt.NDArray[np.int64], count: int, most: int) -> list[int]:
    """Where parts of about `most` of `count` rows end, none within a piece; `begins` are the first rows of pieces."""
    ends = np.append(begins[1:], count)
    found: list[int] = []
    start = 0
    while start < count:
        fits = int(np.searchsorted(ends, start + most, side="right"))
        whole = max(fits, int(np.searchsorted(ends, start, side="right")) + 1)
        start = int(ends[whole - 1])
        found.append(start)
    return found
