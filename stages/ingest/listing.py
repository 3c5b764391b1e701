"""What a source lists before a byte is read. Knows nothing of where images come from: sources fill it. No torch."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.table import Rows, Texts, View

MAX_NAMED = 5
"""Examples an error message gives."""
_NONE = -1


class Item(NamedTuple):
    """One image of the source."""

    name: str
    """Unique in the source; decides the order and stands in the index. Never used as a path in the shards."""
    labels: tuple[int, ...]
    """Classes, ascending."""
    split: str | None = None
    """Given by the tree, or left to the content."""
    size: int = 0
    """Bytes, where the source knows before reading."""
    place: tuple[int, ...] = ()
    """Where the source finds it, where a file holds many: the number of the file, then its own way."""
    fault: str = ""
    """Why it is set aside without a look."""
    mark: int = 0
    """When its file was written, where the source is files: another after it was replaced. No part of the data."""


class Items(Sequence[Item]):
    """Images in few bytes each, appended one by one. Satisfies `Table[Item]`."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._names, self._faults = Texts(), dict[int, str]()
        self._labels, self._label_ends = array("i"), array("Q", [0])
        self._splits, self._split_names = array("B"), list[str | None]()
        self._sizes = array("q")
        self._places: list[array[int]] = []
        self._marks = array("q")  # as long as the others, or empty while there are none
        self._is_sorted, self._last = True, ""
        for item in items:
            self.append(item)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> View[Item]: ...

    def __getitem__(self, place: int | slice) -> Item | View[Item]:
        rows = range(len(self))[place]
        return self.row(rows) if isinstance(rows, int) else View(self, rows)

    def append(self, item: Item) -> None:
        """Add one image behind the others."""
        number = len(self)
        self._is_sorted, self._last = self._is_sorted and self._last <= item.name, item.name
        self._names.append(item.name)
        self._labels.extend(item.labels)
        self._label_ends.append(len(self._labels))
        if item.split not in self._split_names:
            self._split_names.append(item.split)
        self._splits.append(self._split_names.index(item.split))
        self._sizes.append(item.size)
        while len(self._places) < len(item.place):
            self._places.append(array("q", [_NONE]) * number)
        for column, place in enumerate(self._places):
            place.append(item.place[column] if column < len(item.place) else _NONE)
        if item.fault:
            self._faults[number] = item.fault
        if item.mark and not self._marks:
            self._marks.extend([0] * number)
        if item.mark or self._marks:
            self._marks.append(item.mark)

    def row(self, number: int) -> Item:
        """One image, made of its columns."""
        labels = tuple(self._labels[self._label_ends[number] : self._label_ends[number + 1]])
        columns = self._places
        place = tuple([column[number] for column in columns if column[number] != _NONE]) if columns else ()
        split = self._split_names[self._splits[number]]
        mark = self._marks[number] if self._marks else 0
        return Item(self._names[number], labels, split, self._sizes[number], place, self._faults.get(number, ""), mark)

    def name(self, number: int) -> str:
        """One image's name."""
        return self._names[number]

    def take(self, rows: Rows) -> "Items":
        """A table of these rows alone, in their order."""
        return Items(self.row(int(number)) for number in rows)

    def by_name(self) -> "Items":
        """All of them, sorted by name."""
        return self if self._is_sorted else self.take(sorted(range(len(self)), key=self.name))

    def split_codes(self, names: Sequence[str | None]) -> npt.NDArray[np.int16]:
        """The place among `names` of each row's split, -1 for none of them."""
        codes = [names.index(name) if name in names else _NONE for name in self._split_names]
        return np.array([*codes, _NONE], dtype=np.int16)[np.frombuffer(self._splits, dtype=np.uint8)]

    def begins(self, depth: int) -> npt.NDArray[np.int64]:
        """Each row whose place has other first `depth` numbers than that of the row before it, the first among them."""
        differs = np.zeros(len(self), dtype=bool)
        differs[:1] = True
        for column in self._places[:depth]:
            numbers = np.frombuffer(column, dtype=np.int64)
            differs[1:] |= numbers[1:] != numbers[:-1]
        return np.flatnonzero(differs)

    def mark(self, marks: Mapping[str, int]) -> None:
        """Set when each was written, by name."""
        self._marks = array("q", (marks[self.name(number)] for number in range(len(self))))

    def relabel(self, numbers: Sequence[int]) -> None:
        """Put `numbers[label]` in the place of each label."""
        for place, label in enumerate(self._labels):
            self._labels[place] = numbers[label]

    def files(self) -> tuple[Texts, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Names, sizes and marks in columns."""
        sizes = np.array(self._sizes, dtype=np.int64)
        return self._names, sizes, np.array(self._marks, dtype=np.int64) if self._marks else np.zeros_like(sizes)

    @property
    def splits(self) -> tuple[str | None, ...]:
        """Those that occur."""
        return tuple(self._split_names)

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        columns = (self._labels, self._label_ends, self._splits, self._sizes, self._marks, *self._places)
        return self._names.nbytes + sum(column.itemsize * len(column) for column in columns)


@dataclass(frozen=True, slots=True)
class FileDamage:
    """Damage that is not of one image: it stands whichever part of the source is wanted."""

    name: str
    reason: str
    images: int = 1
    """How many images it may have cost, at least 1: what the budget of bad images counts."""
    open_end: bool = False
    """Whether what is missing may be more than can be seen."""


@dataclass(frozen=True)
class Listing:
    """All images of a source, sorted by name."""

    items: Items
    classes: tuple[str, ...]
    multi_label: bool = False
    notes: tuple[str, ...] = ()
    """What was seen and left aside, for people."""
    findings: tuple[FileDamage, ...] = ()
    """Sorted by name."""
    refusal: UsageError | None = None
    """Why it can hardly be meant; whoever ingests raises it, and what was ingested before is still compared with it."""

    @property
    def sha256(self) -> str:
        """Digest of names, sizes, labels and classes."""
        digest = hashlib.sha256(json.dumps([self.classes, self.multi_label]).encode())
        for item in self.items:
            digest.update(json.dumps([item.name, item.labels, item.split, item.size]).encode())
            if item.fault:
                digest.update(json.dumps([item.fault]).encode())
        if self.findings:
            digest.update(json.dumps([[one.name, one.reason, one.images] for one in self.findings]).encode())
        return digest.hexdigest()


class ImageReader(Protocol):
    """The bytes of what was listed. Picklable: tasks read through it on any machine."""

    @property
    def costly(self) -> bool:
        """Whether making the bytes twice is worse than keeping them a while."""

    def read(self, item: Item) -> bytes:
        """The bytes of one image. BadImage with the reason when this one cannot be had."""

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """What `read` gives for each, in order: the bytes, or the BadImage that it raises; several at once if it pays.

        Holds a bounded number of images at a time.
        """


def unit_hash(*parts: str | int) -> float:
    """A number in [0, 1) that depends on `parts` alone; names may hold undecodable bytes."""
    text = "\0".join(str(part) for part in parts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def some(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(map(repr, listed[:MAX_NAMED])) + more
