"""Many images in few bytes: columns in the place of objects, which are made of the rows that are looked at. No torch.

A view is some rows in some order; it travels to a task as those rows alone.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

Row = TypeVar("Row", covariant=True)
Rows = Sequence[int] | npt.NDArray[np.integer[Any]]


class Table(Protocol[Row]):
    """Rows by number."""

    def row(self, number: int) -> Row:
        """One row, made of its columns."""

    def take(self, rows: Rows) -> "Table[Row]":
        """A table of these rows alone, in their order."""


class View(Sequence[Row]):
    """Some rows of a table, in some order."""

    def __init__(self, table: Table[Row], rows: Rows) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> "View[Row]": ...

    def __getitem__(self, place: int | slice) -> "Row | View[Row]":
        return View(self.table, self.rows[place]) if isinstance(place, slice) else self.table.row(int(self.rows[place]))

    def __iter__(self) -> Iterator[Row]:
        return map(self.table.row, self.rows.tolist() if isinstance(self.rows, np.ndarray) else self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return View, (self.table.take(self.rows), range(len(self.rows)))


class Texts:
    """Texts end to end."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: str) -> None:
        """Add one behind the others; undecodable bytes, as in names of files, come back as they were."""
        self._bytes += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._bytes))

    def __getitem__(self, number: int) -> str:
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Texts) and self._ends == other._ends and self._bytes == other._bytes

    __hash__ = None  # type: ignore[assignment]  # they grow

    @classmethod
    def of(cls, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint64]) -> "Texts":
        """From what `columns` gave. ValueError where the two contradict each other."""
        if not len(ends) or ends[0] != 0 or ends[-1] != len(data) or (ends[1:] < ends[:-1]).any():
            raise ValueError("texts that do not end where they should")
        found = cls()
        found._bytes, found._ends = bytearray(data.tobytes()), array("Q", ends.astype(np.uint64).tobytes())
        return found

    def columns(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
        """All bytes, and where each text ends, after a first 0."""
        return np.frombuffer(bytes(self._bytes), dtype=np.uint8), np.array(self._ends, dtype=np.uint64)

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        return len(self._bytes) + self._ends.itemsize * len(self._ends)

    @property
    def nbytes_of_texts(self) -> int:
        """Bytes of the texts alone."""
        return len(self._bytes)
