"""Images that look like very many others, as blank pages and logos do: no two that are left out are compared. No torch.

Each that is kept is compared with those behind it: the work grows as their number does, times that of the kept ones
that may be alike, up to a cap.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose.hamming import Lookup, Places

NONE = 2**62
"""No image: farther than all."""

Words = npt.NDArray[np.uint64]
Number = TypeVar("Number", int, Places)
"""(N, 4): the first look and the three words of the second."""


def nearness(distance: Number, second: Number, place: Number) -> Number:
    """Bits of both looks and the place as one number: the nearest has the least, of equally near the first."""
    return (distance << 48) | (second << 40) | place


def told(nearness: int) -> tuple[int, int, int]:
    """Bits of the first look, of the second, and the place."""
    return nearness >> 48, nearness >> 40 & 0xFF, nearness & 0xFF_FFFF_FFFF


class Crowd:
    """Images by place, ascending; those of a place below `given` are kept in any case.

    One is compared with kept ones before it that may be alike: with the first `most_kept`.

    `views[0]` are all of them whole, the others those that have such a view: the rows that have it and their looks,
    (N, 4) words.
    """

    def __init__(
        self, places: Places, views: Sequence[tuple[Places, Words]], given: int, bits: tuple[int, int], most_kept: int
    ) -> None:
        self._places, self._bits, self._most_kept = places, bits, most_kept
        self._first = int(np.searchsorted(places, given))
        self._row_of = {place: row for row, place in enumerate(places.tolist())}
        rows, looks = (np.concatenate(parts) for parts in zip(*views, strict=True))
        by_row = np.argsort(rows, kind="stable")  # of each the whole first
        self._rows, self._looks = rows[by_row], looks[by_row]
        self._begins = np.searchsorted(self._rows, np.arange(len(places) + 1))
        self._nearest = np.full(len(places), NONE, dtype=np.int64)
        self._compared = np.zeros(len(places), dtype=np.int64)
        self._mark = np.zeros(len(places), dtype=np.int64)
        self._build(self._first)

    @property
    def in_part(self) -> int:
        """Images that were compared with so many kept ones that they were not with any more."""
        return int((self._compared >= self._most_kept).sum())

    @property
    def places(self) -> list[int]:
        """All of them."""
        return list(self._row_of)

    def nearest(self, place: int) -> int:
        """The least nearness to a kept image before it; NONE without one, and for a place that is not of the crowd."""
        row = self._row_of.get(place)
        return NONE if row is None else int(self._nearest[row])

    def keep(self, place: int) -> None:
        """Compare a place that is kept with all later ones of the crowd that were not compared with enough."""
        row = self._row_of.get(place)
        if row is None:
            return
        own = self._looks[self._begins[row] : self._begins[row + 1]]
        met = [*self._meet(row, own[:1], self._all), *self._meet(row, own[1:], self._whole)]
        rows = np.concatenate(met) if met else np.empty(0, dtype=np.int64)
        self._mark[rows] = np.arange(len(rows))  # one of each row's numbers stays
        self._compared[rows[self._mark[rows] == np.arange(len(rows))]] += 1
        if self._idle > self._size:
            self._build(max(self._first, row + 1))

    def _build(self, first: int) -> None:
        """Tables of those from a row on that are still to be compared: of all views, and of them whole."""
        live = self._compared < self._most_kept
        live[:first] = False
        self._all = self._table(np.flatnonzero(live[self._rows]))
        self._whole = self._table(self._begins[:-1][live])
        self._idle, self._size = 0, len(self._all[1]) + len(self._whole[1])

    def _table(self, numbers: Places) -> tuple[Lookup, Places]:
        return Lookup(self._looks[numbers, 0], self._bits[0]), numbers

    def _meet(self, row: int, asked: Words, table: tuple[Lookup, Places]) -> Iterator[Places]:
        """Compare looks of a kept image with those in a table that are of later ones; the rows that they met."""
        lookup, numbers = table
        for found, asking, differ in lookup.met(asked[:, 0]):
            rows = self._rows[numbers[found]]
            live = (rows > row) & (self._compared[rows] < self._most_kept)
            first = np.bitwise_count(differ)
            close = np.flatnonzero(live & (first <= self._bits[0]))
            looks = self._looks[numbers[found[close]], 1:] ^ asked[asking[close], 1:]
            second = np.bitwise_count(looks).sum(axis=1, dtype=np.int64)
            sure = second <= self._bits[1]
            near = nearness(first[close[sure]].astype(np.int64), second[sure], self._places[row])
            np.minimum.at(self._nearest, rows[close[sure]], near)
            met = rows[live]
            self._idle += len(rows) - len(met)
            yield met
