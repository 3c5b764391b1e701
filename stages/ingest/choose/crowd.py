"""Images that look like very many others, as blank pages and logos do: no two that are left out are compared. No torch.

Each that is kept is compared with those behind it: the work grows as their number does, times that of the kept ones
that may be alike, up to a cap.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose.hamming import Lookup, Places

MOST_KEPT = 1_000
"""How many kept images that may be alike a later one of a crowd is compared with, at most: the first."""
NONE = 2**62
"""No image: farther than all."""

Words = npt.NDArray[np.uint64]


def nearness(distance: Places, second: Places, place: Places) -> Places:
    """Bits of both looks and the place as one number: the nearest has the least, of equally near the first."""
    return (distance << 48) | (second << 40) | place


def told(nearness: int) -> tuple[int, int, int]:
    """Bits of the first look, of the second, and the place."""
    return nearness >> 48, nearness >> 40 & 0xFF, nearness & 0xFF_FFFF_FFFF


class Crowd:
    """Images by place, ascending; those of a place below `given` are kept in any case.

    `views[0]` are all of them whole, the others those that have such a view: the rows that have it and their looks,
    (N, 4) words.
    """

    def __init__(
        self, places: Places, views: Sequence[tuple[Places, Words]], given: int, bits: tuple[int, int]
    ) -> None:
        self._places, self._views, self._bits = places, views, bits
        self._first = int(np.searchsorted(places, given))
        self._row_of = {place: row for row, place in enumerate(places.tolist())}
        self._number_of = [{row: number for number, row in enumerate(rows.tolist())} for rows, _ in views]
        self._nearest = np.full(len(places), NONE, dtype=np.int64)
        self._compared = np.zeros(len(places), dtype=np.int64)
        self._build(self._first)

    @property
    def in_part(self) -> int:
        """Images that were compared with so many kept ones that they were not with any more."""
        return int((self._compared >= MOST_KEPT).sum())

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
        met = [self._meet(row, 0, view) for view in range(len(self._views))]
        met += [self._meet(row, own, 0) for own in range(1, len(self._views)) if row in self._number_of[own]]
        self._compared[np.unique(np.concatenate(met))] += 1
        if self._idle > self._size:
            self._build(max(self._first, row + 1))

    def _build(self, first: int) -> None:
        """Tables of those from a row on that are still to be compared."""
        live = self._compared < MOST_KEPT
        live[:first] = False
        numbers = [np.flatnonzero(live[rows]) for rows, _ in self._views]
        self._tables = [
            Lookup(looks[some, 0], some, self._bits[0]) for some, (_, looks) in zip(numbers, self._views, strict=True)
        ]
        self._idle, self._size = 0, sum(map(len, numbers))

    def _meet(self, row: int, own: int, view: int) -> Places:
        """Compare one view of a kept image with one of later ones, either of them whole; the rows that it met."""
        look = self._views[own][1][self._number_of[own][row]]
        rows, looks = self._views[view]
        found = self._tables[view].near(look[0])
        numbers = found[(rows[found] > row) & (self._compared[rows[found]] < MOST_KEPT)]
        self._idle += len(found) - len(numbers)
        first = np.bitwise_count(looks[numbers, 0] ^ look[0])
        close = np.flatnonzero(first <= self._bits[0])
        second = np.bitwise_count(looks[numbers[close], 1:] ^ look[1:]).sum(axis=1, dtype=np.int64)
        sure = second <= self._bits[1]
        alike = rows[numbers[close[sure]]]
        near = nearness(first[close[sure]].astype(np.int64), second[sure], self._places[row])
        self._nearest[alike] = np.minimum(self._nearest[alike], near)
        return rows[numbers]
