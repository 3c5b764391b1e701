"""Which files a source had, kept beside the shards: names and sizes, and apart from them when each was written.

The manifest says what the data are; this says only what lay there, so that a later look can tell what changed. Times
are no part of the artifact: a copy of the source gives the same bytes. No torch.
"""

import io
import json
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.npz import loaded
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.table import Texts
from vitpipe.stages.sighting import EXAMPLES, GONE, HINTS, Difference

INVENTORY = "inventory.npz"
"""Its name in a ShardSet: `names` end to end as bytes, `ends` of each, `sizes`, and `about` as JSON."""
MARKS = f"{HINTS}marks.npz"
"""Its name in the attempt that listed the source: `marks`."""

DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)
"""What a damaged npz raises."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inventory:
    """Files in the order of their names."""

    names: Texts
    sizes: Numbers
    marks: Numbers
    """Another after a file was written again, as `stages.sighting` makes them; 0 where nothing tells."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the small files that say what the others mean: labels, class names, fonts."""
    unit: str = "images"

    @classmethod
    def of(
        cls, rows: Iterable[tuple[str, int, int]], texts: Mapping[str, str] | None = None, unit: str = "files"
    ) -> "Inventory":
        """From names, sizes and marks in any order."""
        names, sizes, marks = Texts(), array("q"), array("q")
        last, is_sorted = "", True
        for name, size, mark in rows:
            is_sorted, last = is_sorted and last <= name, name
            names.append(name)
            sizes.append(size)
            marks.append(mark)
        found = cls(names, np.array(sizes, dtype=np.int64), np.array(marks, dtype=np.int64), texts or {}, unit)
        return found if is_sorted else cls.of(sorted(found), texts, unit)

    @classmethod
    def of_files(cls, files: Iterable[SourceFile]) -> "Inventory":
        """The inventory of files of many images. OSError for a local one that is gone."""
        return cls.of((file.name, file.size, file.mark()) for file in files)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        return zip(map(self.names.__getitem__, range(len(self))), self.sizes.tolist(), self.marks.tolist(), strict=True)

    def encode(self) -> bytes:
        """The same bytes for the same content."""
        return _encoded(self.streamed().write)

    def encode_marks(self) -> bytes:
        """What `encode` leaves out."""
        return _encoded(self.streamed().write_marks)

    def streamed(self) -> "StreamedInventory":
        """The same, as what is written."""
        return StreamedInventory(lambda: [(self.names, self.sizes, self.marks)], self.texts, self.unit)


FileColumns = tuple[Texts, Numbers, Numbers]
"""Names, sizes and marks of some files."""


@dataclass(frozen=True)
class StreamedInventory:
    """An inventory that no memory holds: it is gone through once for each column."""

    columns: Callable[[], Iterable[FileColumns]]
    """All files, some at a time, in the order of their names."""
    texts: Mapping[str, str] = field(default_factory=dict)
    unit: str = "images"

    def streamed(self) -> "StreamedInventory":
        """Itself."""
        return self

    def write(self, file: IO[bytes]) -> None:
        """All but the marks, the same bytes for the same content and however it is cut."""
        about = json.dumps({"schema": 1, "unit": self.unit, "texts": dict(sorted(self.texts.items()))}).encode()
        counts = [(len(names), names.nbytes_of_texts) for names, _, _ in self.columns()]
        count, size = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as held:
            _write_column(held, "names", size, (names.columns()[0] for names, _, _ in self.columns()))
            _write_column(held, "ends", count + 1, self._ends())
            _write_column(held, "sizes", count, (sizes for _, sizes, _ in self.columns()))
            _write_column(held, "about", len(about), [np.frombuffer(about, dtype=np.uint8)])

    def write_marks(self, file: IO[bytes]) -> None:
        """The marks."""
        count = sum(len(marks) for _, _, marks in self.columns())
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as held:
            _write_column(held, "marks", count, (marks for _, _, marks in self.columns()))

    def _ends(self) -> Iterator[npt.NDArray[np.uint64]]:
        last = 0
        yield np.zeros(1, dtype=np.uint64)
        for names, _, _ in self.columns():
            ends = names.columns()[1][1:] + np.uint64(last)
            last = int(ends[-1]) if len(ends) else last
            yield ends


_DTYPES = {"names": np.uint8, "ends": np.uint64, "sizes": np.int64, "about": np.uint8, "marks": np.int64}


def _write_column(held: zipfile.ZipFile, name: str, count: int, pieces: Iterable[npt.NDArray[Any]]) -> None:
    """As `numpy.savez_compressed` does, of an array that is not there as a whole."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(_DTYPES[name])), "fortran_order": False, "shape": (count,)}
    with held.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(piece.tobytes())


def _encoded(write: Callable[[IO[bytes]], None]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


@dataclass(frozen=True)
class FilesNow:
    """What lies at a source now."""

    inventory: Inventory
    """Where it has texts already, they are not looked for again."""
    is_closed: bool = False
    """Whether only the files that were there before count."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """What could not be looked at, each with the reason; the inventory has it as it was."""


def with_unreadable(
    rows: Iterable[tuple[str, int, int]], unreadable: Mapping[str, str], was: Inventory
) -> Iterator[tuple[str, int, int]]:
    """Names, sizes and marks that were found; what could not be looked at is taken to be as it was."""
    yield from rows
    if unreadable:
        yield from (row for row in was if f"{row[0]}/".startswith(tuple(unreadable)))


def parse_inventory(data: bytes, where: str) -> Inventory:
    """Without marks. IntegrityError naming `where` when it is damaged."""
    try:
        with loaded(io.BytesIO(data)) as held:
            about = json.loads(held["about"].tobytes())
            names = Texts.of(held["names"], held["ends"])
            sizes = held["sizes"]
        if len(names) != len(sizes):
            raise ValueError("columns of unequal lengths")
        return Inventory(names, sizes, np.zeros_like(sizes), about["texts"], about["unit"])
    except DAMAGE as error:
        raise IntegrityError(f"read {where}", f"it is damaged: {error}", "restore the object from a copy") from error


def with_marks(of: Inventory, data: bytes) -> Inventory:
    """The inventory with what `encode_marks` gave. ValueError when that is damaged, or of other files."""
    try:
        with loaded(io.BytesIO(data)) as held:
            marks = held["marks"].astype(np.int64)
    except DAMAGE as error:
        raise ValueError(f"damaged: {error}") from error
    if marks.shape != of.sizes.shape:
        raise ValueError(f"of {len(marks)} files instead of {len(of)}")
    return replace(of, marks=marks)


def compare(was: Inventory, now: Inventory, closed: bool = False) -> Difference:
    """What became of the files; with `closed`, files that were not there before mean nothing."""
    if was.names == now.names:
        others = np.flatnonzero(was.sizes != now.sizes)
        of_another_time = (was.marks != now.marks) & (was.marks != 0) & (now.marks != 0)
        touched = np.flatnonzero((was.sizes == now.sizes) & of_another_time)
        examples, hints = (tuple(now.names[row] for row in rows[:EXAMPLES].tolist()) for rows in (others, touched))
        found = Difference(0, 0, len(others), len(touched), examples, hints)
    else:
        found = _merged(iter(was), iter(now), closed)
    about = [name for name in sorted({*was.texts, *now.texts}) if was.texts.get(name) != now.texts.get(name)]
    return replace(found, others=tuple(f"{name}{': changed' if name in now.texts else GONE}" for name in about))


def whole_file(name: str) -> str:
    """Among the texts, the digest of a file that is read whole, once: a look does not read it again."""
    return f"{_WHOLE}{name}"


def whole_files(texts: Mapping[str, str]) -> dict[str, str]:
    """The digests by name that `whole_file` marked."""
    return {name.removeprefix(_WHOLE): sha256 for name, sha256 in texts.items() if name.startswith(_WHOLE)}


_WHOLE = "the file "
_Row = tuple[str, int, int]


def _merged(was: Iterator[_Row], now: Iterator[_Row], closed: bool) -> Difference:
    """Side by side in the order of names, so that nothing but the counts is held."""
    added = gone = changed = touched = 0
    examples, hints = list[str](), list[str]()
    old, new = next(was, None), next(now, None)
    while old is not None or new is not None:
        if old is None or (new is not None and new[0] < old[0]):
            assert new is not None
            other = not closed
            added, name, new = added + other, new[0], next(now, None)
        elif new is None or old[0] < new[0]:
            gone, name, old, other = gone + 1, old[0], next(was, None), True
        else:
            other, name = old[1] != new[1], old[0]
            changed += other
            if not other and old[2] != new[2] and old[2] and new[2]:
                touched += 1
                hints += [name] if len(hints) < EXAMPLES else []
            old, new = next(was, None), next(now, None)
        if other and len(examples) < EXAMPLES:
            examples.append(name)
    return Difference(added, gone, changed, touched, tuple(examples), tuple(hints))
