"""A source that was opened: what can be asked of it, and its listing, by a task for each file that has to be opened."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.listing import ImageReader, Items, Listing
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.patterns import SourceFile


class Source(ImageReader, Protocol):
    """Where images come from."""

    def listing(self) -> Listing:
        """All images. UsageError when there is nothing to ingest, saying what was found."""

    def inventory(self, listing: Listing) -> Inventory:
        """The files that a part of its listing is made of, without the texts. OSError for one that is gone."""


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
        return self.joined([self.list_file(file) for file in self.files])

    def inventory(self, listing: Listing) -> Inventory:
        """All files, whichever part of the listing is wanted."""
        return Inventory.of_files(self.files)

    @abstractmethod
    def known_classes(self) -> Classes | None:
        """Those that are known before rows and samples are read. UsageError as `joined`."""

    @abstractmethod
    def list_file(self, file: SourceFile) -> FileListing:
        """What one file holds: names, places, sizes and labels, no bytes of images."""

    @abstractmethod
    def joined(self, parts: Sequence[FileListing]) -> Listing:
        """The whole listing. UsageError when there is nothing to ingest."""


def list_source(source: Source, ctx: StageContext) -> Listing:
    """All images of a source, its files opened by as many tasks as there are."""
    if not isinstance(source, SourceOfFiles):
        return source.listing()
    found: dict[int, FileListing] = {}
    lists: dict[tuple[str, ...], tuple[str, ...]] = {}  # class names, once for the thousand files that repeat them
    label = "list-{0.number}".format
    opens = replace(source, files=()).list_file  # twenty thousand tasks: none needs the others' files
    for done in ctx.cluster.fan(opens, source.files, resources=ctx.resources, label=label):
        part = done.value()
        found[done.item.number] = replace(part, names=lists.setdefault(part.names, part.names))
    return source.joined([found[file.number] for file in source.files])


def chunks(source: Source, items: Items, most: int) -> list[range]:
    """The rows of a listing in parts for a task each: `most` together, or more where one piece has more."""
    depth = source.piece if isinstance(source, SourceOfFiles) else 0
    if not depth:
        return [range(start, min(start + most, len(items))) for start in range(0, len(items), most)]
    begins = items.begins(depth)
    ends = np.append(begins[1:], len(items))
    found: list[range] = []
    start = 0
    while start < len(items):
        fits = int(np.searchsorted(ends, start + most, side="right"))
        whole = max(fits, int(np.searchsorted(ends, start, side="right")) + 1)
        end = int(ends[whole - 1])
        found.append(range(start, end))
        start = end
    return found
