"""Image files in a tree, local or on S3: `root/class/*`, `root/split/class/*`, or any with a labels file. No torch.

Files are candidates by their suffix; whether they are images, their bytes decide.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import ClassVar

from vitpipe.infra.errors import NotFound, StorageError, UsageError
from vitpipe.stages.images.decode import MAX_FILE_BYTES
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import Item, Items, Listing, some
from vitpipe.stages.ingest.reading import UnreadableImage, ahead, one_by_one
from vitpipe.stages.ingest.sources.class_folders import of_one_split
from vitpipe.stages.ingest.sources.folder_layout import (
    SeenFolders,
    other_kind,
    split_folder,
    split_of,
    suffix_of,
    told_astray,
    unread_formats,
)
from vitpipe.stages.ingest.sources.folder_walk import FoundFile, LeftAside, files_below, folders_at, objects
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.labels_file import left_aside, read_labels
from vitpipe.stages.ingest.sources.vocabulary import odd_names
from vitpipe.stages.ingest.sources.window import store_of


@dataclass(frozen=True)
class FolderTree:
    """Satisfies `opened.Source`. `root` is an absolute local path or an `s3://` URI."""

    root: str
    labels: str | None = None
    split_folders: bool = False
    labelled: bool = True
    """Whether images have classes; else any folders will do."""

    costly: ClassVar[bool] = False
    """A file is there to be read again."""

    def listing(self) -> Listing:
        """All images by their folders, or by the labels file. UsageError naming what does not fit."""
        if self.labels is None:
            return self._by_folders() if self.labelled else self._unlabelled()
        aside = LeftAside()
        there = {file.name: file for file in self._walk(aside=aside)}
        if not there:
            raise self._empty(Counter())
        return read_labels(self.labels, self.root, there, aside.notes())

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

    def _walk(self, unreadable: dict[str, str] | None = None, aside: LeftAside | None = None) -> Iterator[FoundFile]:
        aside = LeftAside() if aside is None else aside
        if not self._is_local:
            return objects(store_of(self.root).list(), aside)
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

        return files_below(Path(self.root), refuse, aside)

    def _by_folders(self) -> Listing:
        depth = 2 if self.split_folders else 1
        items, astray, others = Items(), list[str](), Counter[str]()
        folders, number = SeenFolders(depth), dict[str, int]()
        aside, lost = LeftAside(), list[str]()
        for file in self._walk(aside=aside):
            parts = PurePosixPath(file.name).parts
            if not file.is_candidate:
                others[suffix_of(file.name)] += 1
                lost += [file.name] if file.fault and len(parts) <= depth and "." not in parts[-1] else []
            elif len(parts) <= depth:
                astray.append(file.name)
            else:
                folders.see(parts)
                label = number.setdefault(parts[depth - 1], len(number))
                split = split_folder(parts[0]) if self.split_folders else None
                items.append(Item(file.name, (label,), split, file.size, (), file.fault, file.mark))
        if lost:
            do = "mount or fetch what they lead to, or name a folder without them"
            raise self._wrong(f"{len(lost)} links in the place of folders lead to nothing: {some(lost)}", do)
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
            *aside.notes(),
            *unread_formats(map(items.name, range(len(items)))),
            *odd_names(classes),
            *folders.notes(),
            *of_one_split(splits),
        )
        return Listing(items.by_name(), classes, notes=notes, refusal=refusal)

    def _unlabelled(self) -> Listing:
        """All images wherever they stand; with `split_folders` the first folder is the split."""
        items, others, aside = Items(), Counter[str](), LeftAside()
        for file in self._walk(aside=aside):
            first, slash, _ = file.name.partition("/")
            if not file.is_candidate:
                others[suffix_of(file.name)] += 1
            elif self.split_folders and not slash:
                raise self._wrong(f"{file.name!r} stands in no folder of a split", "leave `splits: folders` out")
            else:
                split = split_folder(first) if self.split_folders else None
                items.append(Item(file.name, (), split, file.size, (), file.fault, file.mark))
        if not items:
            raise self._empty(others)
        unread = unread_formats(map(items.name, range(len(items))))
        notes = (*([left_aside(others.total())] if others else ()), *aside.notes(), *unread)
        return Listing(items.by_name(), (), notes=notes)

    def _refuse_empty(self, parents: Iterable[tuple[str, ...]], depth: int) -> None:
        """An empty class folder would silently become a class less, an empty split nothing. S3 has no empty folders."""
        kinds = ((depth, "class folders hold no images:"), (1, "split folders hold no images:"))
        for level, found in kinds if self._is_local else ():
            there = {parts for parts in folders_at(Path(self.root), level) if depth == level or split_of(parts[0])}
            if empty := ["/".join(parts) for parts in sorted(there - {parts[:level] for parts in parents})]:
                raise self._wrong(f"{len(empty)} {found} {some(empty)}", "fill them, or keep them elsewhere")

    def _empty(self, files: Counter[str]) -> UsageError:
        found = f"it has {files.total()} files, none of them an image"
        if not files:
            found = f"no {'file' if self._is_local else 'object'} lies below it"
        return self._wrong(found, other_kind(files))

    def _wrong(self, found: str, do: str) -> UsageError:
        return UsageError(f"ingest {self.root}", found, do)
