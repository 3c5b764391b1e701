"""Image files in a tree of folders, local or on S3: `folder_tree.py` walks, lists and reads it. No torch."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from vitpipe.infra.storage.hub_names import data_place, data_place_or_none
from vitpipe.stages.ingest.sources.source_settings import (
    LOOK_SECONDS,
    UNLABELLED,
    SourceCount,
    SourceSettings,
    Splits,
    formats_by,
    suffix_of,
)
from vitpipe.stages.settings import Place

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.listing import Item, Listing
    from vitpipe.stages.ingest.sources.folder_tree import FolderTree
    from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory


class _Counted:
    """Satisfies `listing.ImageSink`: keeps no image."""

    def __init__(self) -> None:
        self._images, self.bytes, self.splits, self.suffixes = 0, 0, Counter[str](), Counter[str]()

    def __len__(self) -> int:
        return self._images

    def append(self, item: "Item") -> None:
        self._images, self.bytes = self._images + 1, self.bytes + item.size
        self.suffixes[suffix_of(item.name)] += 1
        if item.split is not None:
            self.splits[item.split] += 1

    def relabel(self, numbers: "Sequence[int]") -> None:
        """Nothing: labels are not counted."""


class FolderSource(SourceSettings):
    """Image files in a tree of folders, local or on S3: `root/class/*.jpg`."""

    kind: Literal["folder"]
    root: Annotated[str, Place(), AfterValidator(data_place)]
    """Local folder, `s3://bucket/prefix`, or `hf://owner/name[@revision][/path]`, a data set on the Hugging Face Hub.
    Not part of the recipe: a folder may move, its listing is what counts, and the shards are the same bytes wherever
    it lies. Files and folders whose name begins with a dot, and what file servers and desktops leave (`@eaDir`,
    `__MACOSX`, `Thumbs.db`), are left aside and counted; a link to nothing is set aside as a bad image."""
    labels: Annotated[str | None, Place(words=(UNLABELLED,)), AfterValidator(data_place_or_none)] = None
    """A csv, tsv or jsonl file, packed with gzip or not, of `path` and `label`, or `labels` for several (in csv
    separated by `;`); instead of one folder per class. `file_name`, `filename`, `image` and their like stand for
    `path`, which is relative to `root` or begins with it; what it names is read whatever its suffix.
    Or `none`: no image has a class, and any folders will do; only masked patches are pretrained on such a set."""

    @property
    def location(self) -> str:
        """The root."""
        return self.root

    @property
    def makes_bytes(self) -> bool:
        """False: they stand in the files."""
        return False

    def check_splits(self, splits: Splits) -> None:
        """`folders` is meant, unless a labels file says the classes."""
        if splits != "folders":
            super().check_splits(splits)
        elif self._labels_file:
            raise ValueError("splits: folders and a labels file exclude each other: a listed path has no class folder")

    def open(self, splits: Splits) -> "FolderTree":
        """The tree below the root; with splits `folders` its first level are the splits."""
        from vitpipe.stages.ingest.sources.folder_tree import FolderTree

        return FolderTree(self.root, self._labels_file, splits == "folders", not self.unlabelled)

    @property
    def _labels_file(self) -> str | None:
        return None if self.unlabelled else self.labels

    def count(self, splits: Splits) -> SourceCount | str:
        """The whole listing of a local tree; of one on S3 nothing."""
        if "://" in self.root:
            return f"counted when {self.root} is listed"
        counted = _Counted()
        listing = self.open(splits).stream(counted)
        if listing.refusal:
            raise listing.refusal
        count, classes = len(counted), listing.classes
        each_bytes = counted.bytes / count
        facts = len(classes), classes, counted.splits, listing.notes, formats_by(counted.suffixes)
        return SourceCount(count, each_bytes, LOOK_SECONDS, *facts)

    def list_unopened(self, splits: Splits) -> "Listing":
        """Names, sizes and a labels file are all that a listing needs."""
        return self.part(self.open(splits).listing())

    def is_there(self) -> bool:
        """Whether a file that could be an image lies below the root. UsageError for a root that is not there."""
        return any(self.open({}).candidates({}))

    def text_digests(self) -> dict[str, str]:
        """The labels file, if there is one."""
        from vitpipe.stages.ingest.sources.text_file import read_text

        if self._labels_file is None:
            return {}
        return {"the labels file": sha256(read_text(self._labels_file).encode()).hexdigest()}

    def files_now(self, was: "Inventory") -> "FilesNow":
        """All candidates below the root; where a part was taken, those that a part would have now."""
        from vitpipe.stages.ingest.listing import Item, Items, Listing
        from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory, with_unreadable

        unreadable: dict[str, str] = {}
        seen = ((file.name, file.size, file.mark) for file in self.open({}).candidates(unreadable))
        files = with_unreadable(seen, unreadable, was)
        if self._labels_file is None and (self.limit or self.subset):
            there = list(files)
            items = Items(Item(name, (), None, size) for name, size, _ in there)
            names = {item.name for item in self.part(Listing(items, ())).items}
            files = (file for file in there if file[0] in names)
        return FilesNow(Inventory.of(files, unit="images"), self._labels_file is not None, unreadable)
