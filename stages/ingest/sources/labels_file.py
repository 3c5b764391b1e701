"""A csv or jsonl file that says which classes each image has, joined with the files of a folder. No torch."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from vitpipe.stages.ingest.listing import MAX_NAMED, Item, Items, Listing, some
from vitpipe.stages.ingest.sources.class_names import sorted_classes
from vitpipe.stages.ingest.sources.folder_layout import unread_formats
from vitpipe.stages.ingest.sources.folder_walk import is_aside
from vitpipe.stages.ingest.sources.label_rows import label_rows, wrong
from vitpipe.stages.ingest.sources.vocabulary import mixed_names, odd_names

OF_SPLITS = frozenset(("split", "splits", "subset", "partition", "fold"))
"""Columns by which people mean a split."""
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\w+://")


class ListedFile(Protocol):
    """What is asked of a file below the root."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def mark(self) -> int:
        """As in `listing.Item`."""

    @property
    def fault(self) -> str:
        """Why it is set aside without a look."""

    @property
    def is_candidate(self) -> bool:
        """Whether its name ends like an image's."""


def left_aside(others: int) -> str:
    """Words on files that are not taken for images."""
    return f"{others} files that are no images by their suffix were left aside"


def read_labels(where: str, root: str, files: Mapping[str, ListedFile], notes: Iterable[str] = ()) -> Listing:
    """Join the file with what lies below `root`, by name. UsageError for what does not fit."""
    rows: dict[str, tuple[str, ...]] = {}
    written: dict[str, str] = {}  # paths that are not the names of their files
    absent, columns, several = list[str](), set[str](), False
    below = FilesBelow(root, files)
    for row in label_rows(where):
        name = below.find(row.path)
        if name is None:
            absent.append(row.path)
        elif name in rows:
            first = written.get(name, name)
            other = "" if first == row.path else f", before as {first!r}"
            raise wrong(where, f"line {row.line}: {row.path!r} is listed twice{other}", "list each image once")
        else:
            rows[name] = row.labels
            written |= {} if name == row.path else {name: row.path}
        columns.update(row.columns)
        several = several or row.several
    if absent:
        hints = "; ".join(dict.fromkeys(hint for path in absent[:MAX_NAMED] if (hint := below.near(path))))
        found = f"{len(absent)} of {len(rows) + len(absent)} listed images are not below {root}: {some(sorted(absent))}"
        do = "list each by its path below `root`, or put it there"
        raise wrong(where, f"{found}{hints and f' ({hints})'}", do)
    if not rows:
        raise wrong(where, "it lists no images")
    classes = sorted_classes({label for labels in rows.values() for label in labels})
    told = (*_notes(where, files, rows, columns), *mixed_names(where, classes), *odd_names(classes))
    return Listing(_items(files, rows, classes), classes, several, (*notes, *told))


def _items(files: Mapping[str, ListedFile], rows: Mapping[str, tuple[str, ...]], classes: Sequence[str]) -> Items:
    number = {name: place for place, name in enumerate(classes)}
    items = Items()
    for name, labels in sorted(rows.items()):
        file, numbers = files[name], tuple(sorted(number[label] for label in labels))
        items.append(Item(name, numbers, None, file.size, (), file.fault, file.mark))
    return items


def _notes(
    where: str, files: Mapping[str, ListedFile], rows: Mapping[str, object], columns: Iterable[str]
) -> Iterator[str]:
    others = sum(not file.is_candidate for name, file in files.items() if name not in rows)
    if others:
        yield left_aside(others)
    if images := len(files) - len(rows) - others:
        yield f"{images} images without a line in {where} were left aside"
    if splits := sorted(name for name in columns if name.strip().casefold() in OF_SPLITS):
        yield f"the column {splits[0]!r} of {where} is not read: `splits` of the ingest cuts the images"
    yield from unread_formats(rows)


class FilesBelow:
    """The files below a root by the paths that people write for them."""

    def __init__(self, root: str, files: Mapping[str, ListedFile]) -> None:
        self._files = files
        roots = [root]
        if "://" not in root:
            roots += [os.path.realpath(root), f"file://{root}", f"file://{os.path.realpath(root)}"]
        self._roots = tuple(f"{one.rstrip('/')}/" for one in roots)

    def find(self, path: str) -> str | None:
        """The name of the file that is meant: as it stands, else one that the path can mean and no other file."""
        if path in self._files:
            return path
        for form in dict.fromkeys((path.strip(), path.strip().replace("\\", "/"))):
            begins = next((root for root in self._roots if form.startswith(root)), "")
            plain = "/".join(part for part in form.removeprefix(begins).split("/") if part not in ("", "."))
            found = [plain] if plain in self._files else self._by_unicode.get(_composed(plain), [])
            if len(found) == 1 and (begins or not _ABSOLUTE.match(form)):
                return found[0]
        return None

    def near(self, path: str) -> str:
        """In words why a path names no file, where a file of nearly that name tells; else nothing."""
        path = path.strip().replace("\\", "/")
        if any(map(is_aside, (part for part in path.split("/") if part not in (".", "..")))):
            return "what is hidden, or left by file servers and desktops, is left aside"
        if _ABSOLUTE.match(path):
            return "a path that is not relative has to begin with `root`"
        found = self._by_stem.get(_stem(path), ())
        return f"there is {found[0]!r}" if len(found) == 1 else ""

    @cached_property
    def _by_unicode(self) -> Mapping[str, list[str]]:
        """Names that are not ASCII in composed form: some systems keep their files' names decomposed."""
        found: dict[str, list[str]] = {}
        for name in self._files:
            if not name.isascii():
                found.setdefault(_composed(name), []).append(name)
        return found

    @cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._files:
            found.setdefault(_stem(name), []).append(name)
        return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    """In one case, without its suffix."""
    folder, slash, last = name.casefold().rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"
