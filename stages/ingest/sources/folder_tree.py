"""Image files in a tree, local or on S3: `root/class/*`, `root/split/class/*`, or any with a labels file. No torch.

Files are candidates by their suffix; whether they are images, their bytes decide.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

from vitpipe.infra.errors import NotFound, StorageError, UsageError
from vitpipe.stages.images.classes import difference
from vitpipe.stages.images.decode import MAX_FILE_BYTES
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import Item, Items, Listing, some
from vitpipe.stages.ingest.reading import UnreadableImage, ahead, one_by_one
from vitpipe.stages.ingest.sources.folder_layout import (
    IMAGE_SUFFIXES,
    SeenFolders,
    other_kind,
    suffix_of,
    told_astray,
    unread_formats,
)
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.labels_file import left_aside, read_labels
from vitpipe.stages.ingest.sources.vocabulary import odd_names
from vitpipe.stages.ingest.sources.window import store_of
from vitpipe.stages.sighting import etag_mark, time_mark


class FoundFile(NamedTuple):
    """One file below the root."""

    name: str
    size: int
    mark: int = 0
    """When it was written: another after it was replaced."""
    fault: str = ""
    """Why its bytes are not to be had."""

    @property
    def is_candidate(self) -> bool:
        """Whether its name ends like an image's."""
        return suffix_of(self.name) in IMAGE_SUFFIXES


@dataclass(frozen=True)
class FolderTree:
    """Satisfies `opened.Source`. `root` is an absolute local path or an `s3://` URI."""

    root: str
    labels: str | None = None
    split_folders: bool = False

    costly: ClassVar[bool] = False
    """A file is there to be read again."""

    def listing(self) -> Listing:
        """All images by their folders, or by the labels file. UsageError naming what does not fit."""
        if self.labels is None:
            return self._by_folders()
        files = {file.name: file for file in self._walk()}
        if not files:
            raise self._empty(Counter())
        return read_labels(self.labels, self.root, files)

    def candidates(self, unreadable: dict[str, str]) -> Iterator[FoundFile]:
        """All files that could be images, wherever they stand and whatever their classes; any that a list may name.

        What cannot be listed below the root goes to `unreadable`: its name, with a slash, and why. UsageError where
        there is no such folder, StorageError where it cannot be listed itself.
        """
        there = self._walk(unreadable)
        return filter(attrgetter("is_candidate"), there) if self.labels is None else there

    def inventory(self, listing: Listing) -> Inventory:
        """The image files that are in the listing."""
        return Inventory(*listing.items.files(), unit="images")

    def read(self, item: Item) -> bytes:
        """One file or object. BadImage for one that is too long or cannot be read, StorageError for a failing disk."""
        if item.size > MAX_FILE_BYTES:
            raise BadImage(f"a file of {item.size} bytes is over the cap of {MAX_FILE_BYTES}")
        path = Path(self.root, item.name)
        try:
            return path.read_bytes() if self._is_local else store_of(self.root).read(item.name)
        except NotFound as error:
            raise UnreadableImage("it cannot be read: no object of that name") from error
        except (FileNotFoundError, PermissionError) as error:
            raise UnreadableImage(f"it cannot be read: {error.strerror}") from error
        except OSError as error:
            raise StorageError(f"read {path}", str(error), "check the disk, then run again") from error

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """Local files one by one, objects several at once."""
        return one_by_one(self.read, items) if self._is_local else ahead(self.read, items)

    @property
    def _is_local(self) -> bool:
        return "://" not in self.root

    def _walk(self, unreadable: dict[str, str] | None = None) -> Iterator[FoundFile]:
        if not self._is_local:
            there = (entry for entry in store_of(self.root).list() if "/." not in f"/{entry.path}")
            return (FoundFile(entry.path, entry.bytes, etag_mark(entry.version)) for entry in there)
        if not os.path.isdir(self.root):
            raise self._wrong("no such folder", "correct `root`, or mount it on this machine")

        def refuse(name: str, error: OSError) -> None:
            why = error.strerror or str(error)
            if unreadable is None or not name:
                found, do = (
                    f"{self.root}/{name} cannot be listed: {why}",
                    "let it be listed, or take it out of the folder",
                )
                raise StorageError(f"ingest {self.root}", found, do)
            unreadable[name] = why

        return _files(Path(self.root), "", (os.path.realpath(self.root),), refuse)

    def _by_folders(self) -> Listing:
        depth = 2 if self.split_folders else 1
        items, astray, others = Items(), list[str](), Counter[str]()
        folders, number = SeenFolders(depth), dict[str, int]()
        for file in self._walk():
            parts = PurePosixPath(file.name).parts
            if not file.is_candidate:
                others[suffix_of(file.name)] += 1
            elif len(parts) <= depth:
                astray.append(file.name)
            else:
                folders.see(parts)
                label = number.setdefault(parts[depth - 1], len(number))
                split = parts[0] if self.split_folders else None
                items.append(Item(file.name, (label,), split, file.size, mark=file.mark))
        if not items and not astray:
            raise self._empty(others)
        if astray:
            raise self._wrong(*told_astray(astray, not items, depth))
        if misplaced := folders.misplaced(self.root):
            refusal = self._wrong(*misplaced)
        else:
            refusal = None
            self._refuse_empty(folders.parents, depth)
        classes = tuple(sorted(number))
        places = {name: place for place, name in enumerate(classes)}
        items.relabel([places[name] for name in number])
        splits = folders.parents if self.split_folders else ()
        notes = (
            *([left_aside(others.total())] if others else ()),
            *unread_formats(map(items.name, range(len(items)))),
            *odd_names(classes),
            *folders.notes(),
            *_of_one_split(splits),
        )
        return Listing(items.by_name(), classes, notes=notes, refusal=refusal)

    def _refuse_empty(self, parents: Iterable[tuple[str, ...]], depth: int) -> None:
        """An empty class folder would silently become a class less. S3 knows no empty folders."""
        there = _folders(Path(self.root), depth) if self._is_local else ()
        if empty := ["/".join(parts) for parts in sorted(set(there) - set(parents))]:
            raise self._wrong(f"{len(empty)} class folders hold no images: {some(empty)}", "fill or remove them")

    def _empty(self, files: Counter[str]) -> UsageError:
        found = f"it has {files.total()} files, none of them an image"
        if not files:
            found = f"no {'file' if self._is_local else 'object'} lies below it"
        return self._wrong(found, other_kind(files))

    def _wrong(self, found: str, do: str) -> UsageError:
        return UsageError(f"ingest {self.root}", found, do)


def _of_one_split(parents: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Which classes a split lacks that another has: nobody learns what is in `test` alone."""
    splits: dict[str, set[str]] = {}
    for split, name in sorted(parents):
        splits.setdefault(split, set()).add(name)
    train = "train" if "train" in splits else min(splits, default="")
    for split, names in splits.items():
        if names != splits[train]:
            differs = difference(sorted(splits[train]), sorted(names), (train, split))
            yield f"the class folders of {train} and {split} differ: {differs}"


def _files(
    folder: Path, prefix: str, above: tuple[str, ...], refuse: Callable[[str, OSError], None]
) -> Iterator[FoundFile]:
    """All files below by name, hidden ones aside; linked folders are followed, but not back into themselves."""
    named: list[tuple[str, os.DirEntry[str]]] = []
    try:
        with os.scandir(folder) as entries:
            there = [one for one in entries if one.name[0] != "."]
    except OSError as error:
        refuse(prefix, error)
        return
    for one in there:
        try:
            named.append((f"{one.name}/" if _is(one.is_dir) else one.name, one))
        except OSError as error:  # a link to where one may not look
            refuse(f"{prefix}{one.name}/", error)
    for name, entry in sorted(named, key=itemgetter(0)):
        if not name.endswith("/"):
            if _is(entry.is_file):
                state = entry.stat()
                yield FoundFile(prefix + name, state.st_size, time_mark(state))
        elif (real := os.path.realpath(entry.path)) not in above:
            yield from _files(Path(entry.path), prefix + name, (*above, real), refuse)


def _is(kind: Callable[[], bool]) -> bool:
    """What `kind` says; a link that goes round in a circle leads to nothing, as one that dangles."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _folders(root: Path, depth: int) -> Iterator[tuple[str, ...]]:
    """Folders exactly `depth` levels below the root, hidden ones aside."""
    for entry in os.scandir(root):
        if _is(entry.is_dir) and not entry.name.startswith("."):
            if depth == 1:
                yield (entry.name,)
            else:
                yield from ((entry.name, *rest) for rest in _folders(Path(entry.path), depth - 1))
