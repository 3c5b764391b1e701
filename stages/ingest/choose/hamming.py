"""All pairs of 64-bit hashes within a few bits of each other, without comparing all with all. No torch.

Multi-index hashing (Norouzi, Punjani, Fleet 2012): the bits are cut into bands; two hashes that differ in at most n
bits differ in at most n // bands bits of some band, so only those that agree in a band up to a few flips are compared.
With bands as wide as log2 of the number of hashes, a band's bucket holds about one hash: memory is linear, and for a
given n time is linear too, up to the number of flips, which grows slowly with the width.

A task that holds a part of all has a `HashCell` of those that agree in some bits: what differs is in the others.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BITS = 64
FEWEST = 3
"""Bands, at least: the table of one has 2 to the power of its bits places."""
PAIRS_AT_ONCE = 4_000_000
"""Candidates compared at once: a bound on memory where many hashes share a bucket."""

SAMPLE = 64
"""Hashes of a bucket that tell what the others in it are like."""

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Band = tuple[int, int, int]
"""Its lowest bit, its bits, and in how many of them two that are compared may differ."""


class HashCell(NamedTuple):
    """Hashes whose highest `top` bits, as a number, are one of `values` from `low` on; compared are those that agree.

    In these bits, and in one of the `bands` of the lower ones up to its flips.
    """

    bands: tuple[Band, ...]
    top: int = 0
    low: int = 0
    values: int = 1
    elsewhere: tuple[Band, ...] = ()
    """Pairs that agree in one of these are found in another cell."""

    @classmethod
    def of_all(cls, count: int, most: int) -> "HashCell":
        """All hashes of a search, if one task holds them."""
        return cls(tuple(_bands(count, most)))

    def keys(self, hashes: Hashes, band: Band) -> Rows:
        """What those that are compared agree in, up to the flips."""
        shift, width, _ = band
        found = _band(hashes, shift, width)
        if self.top:
            found |= ((hashes >> np.uint64(BITS - self.top)).astype(np.int64) - self.low) << width
        return found.astype(np.int32)

    def table(self, hashes: Hashes, band: Band) -> tuple[Places, Rows]:
        """Places sorted by their key, and where each key begins among them."""
        keys = self.keys(hashes, band)
        order = np.argsort(keys, kind="stable")
        every = np.arange((self.values << band[1]) + 1, dtype=np.int32)
        return order, np.searchsorted(keys[order], every).astype(np.int32)

    def is_new(self, differ: Hashes, number: int) -> npt.NDArray[np.bool_]:
        """Whether a pair that band `number` meets was met neither by one before it nor elsewhere."""
        new = np.ones(len(differ), dtype=bool)
        for shift, width, flips in (*self.elsewhere, *self.bands[:number]):
            new &= np.bitwise_count(_band(differ, shift, width)) > flips
        return new


def near_pairs(hashes: Hashes, most: int, cell: HashCell | None = None) -> Iterator[tuple[Places, Places, Places]]:
    """Pairs (i, j) with i < j and their distance, at most `most`, for distinct `hashes` (N,); each pair once."""
    cell = cell or HashCell.of_all(len(hashes), most)
    for number, band in enumerate(cell.bands):
        for first, second in _candidates(cell, hashes, band):
            differ = hashes[first] ^ hashes[second]
            distance = np.bitwise_count(differ)
            close = distance <= most
            first, second, distance = first[close], second[close], distance[close]
            new = cell.is_new(differ[close], number)
            low, high = np.minimum(first, second)[new], np.maximum(first, second)[new]
            yield low, high, distance[new].astype(np.int64)


class Lookup:
    """Hashes that others of their cell are compared with; without a cell, of any bits."""

    def __init__(self, hashes: Hashes, most: int, cell: HashCell | None = None) -> None:
        self._hashes, self._most = hashes, most
        self._cell = cell or HashCell.of_all(len(hashes), most)
        self._tables = [self._cell.table(hashes, band) for band in self._cell.bands]

    def met(self, others: Hashes) -> Iterator[tuple[Places, Places, Hashes]]:
        """Pairs (i, j of `others`) that agree in a band up to its flips, and the bits that differ; each pair once."""
        for number, (band, (order, starts)) in enumerate(zip(self._cell.bands, self._tables, strict=True)):
            for there, second in _asked(starts, self._cell.keys(others, band), band):
                first = order[there]
                differ = self._hashes[first] ^ others[second]
                new = self._cell.is_new(differ, number)
                yield first[new], second[new], differ[new]

    def near(self, others: Hashes) -> Iterator[tuple[Places, Places, Places]]:
        """Pairs (i, j of `others`) and their distance, at most `most`; each pair once."""
        for first, second, differ in self.met(others):
            distance = np.bitwise_count(differ)
            close = distance <= self._most
            yield first[close], second[close], distance[close].astype(np.int64)

    def compared_with(self, others: Hashes) -> Places:
        """With how many each of `others` is compared."""
        found = np.zeros(len(others), dtype=np.int64)
        for band, (_, starts) in zip(self._cell.bands, self._tables, strict=True):
            asking, sizes = self._cell.keys(others, band), np.diff(starts)
            for mask in _masks(*band[1:]):
                found += sizes[asking ^ mask]
        return found

    def likely_near(self, others: Hashes) -> npt.NDArray[np.float64]:
        """How many are within `most` bits of each of `others`, reckoned from the first `SAMPLE` of each bucket.

        The hashes have to come in an order that tells nothing of them.
        """
        places, found = np.arange(len(others), dtype=np.int32), np.zeros(len(others))
        for band, (order, starts) in zip(self._cell.bands, self._tables, strict=True):
            asking, near = self._cell.keys(others, band), np.zeros(len(others))
            for mask in _masks(*band[1:]):
                low, end = starts[asking ^ mask], starts[(asking ^ mask) + 1]
                taken = np.minimum(end - low, SAMPLE)
                for one, there in _products(places, low, taken):
                    close = np.bitwise_count(self._hashes[order[there]] ^ others[one]) <= self._most
                    near += np.bincount(one[close], minlength=len(others)) * (end - low) / np.maximum(taken, 1)
            found = np.maximum(found, near)
        return found


def bands_below(top: int, count: int, most: int) -> tuple[Band, ...]:
    """Bands of the bits below the highest `top` with which the fewest of `count` hashes are compared.

    The table of a band has a few places for each hash; without bands all that agree above are compared.
    """
    bits, room = BITS - top, 8 * count + 2**16
    plans: list[list[Band]] = [[(0, 0, 0)]]
    for number in range(FEWEST, bits + 1):
        cut = _cut(number, most, bits)
        if 2 ** (top + max(width for _, width, _ in cut)) <= room:
            plans.append(cut)
    expected = [comparisons(plan, top, count) for plan in plans]
    return tuple(plans[expected.index(min(expected))])


def comparisons(plan: Sequence[Band], top: int, count: int) -> float:
    """With how many of `count` hashes one is compared, were their bits drawn, below the highest `top`."""
    return sum(_probes(width, flips) * (1 + count / float(1 << (top + width))) for _, width, flips in plan)


def _bands(count: int, most: int) -> list[Band]:
    """Those with which the fewest hashes are compared."""
    plans = [_cut(number, most) for number in range(FEWEST, BITS // 8 + 1)]
    return min(plans, key=lambda plan: comparisons(plan, 0, count))


def _cut(number: int, most: int, bits: int = BITS) -> list[Band]:
    """`number` bands. The first `most % number + 1` may differ in `most // number` bits, the rest in one less."""
    edges = [bits * place // number for place in range(number + 1)]
    flips = [most // number - (place > most % number) for place in range(number)]
    cut = zip(edges, edges[1:], flips, strict=False)
    return [(start, end - start, flip) for start, end, flip in cut if flip >= 0]


def _probes(width: int, flips: int) -> int:
    return sum(comb(width, bits) for bits in range(flips + 1))


def _band(hashes: Hashes, shift: int, width: int) -> Places:
    return ((hashes >> np.uint64(shift)) & np.uint64(2**width - 1)).astype(np.int64)


def _candidates(cell: HashCell, hashes: Hashes, band: Band) -> Iterator[tuple[Places, Places]]:
    """Pairs whose band differs in at most its flips, each once, in pieces."""
    order, starts = cell.table(hashes, band)
    _, width, flips = band
    values = cell.keys(hashes[order], band)
    places = np.arange(len(values), dtype=np.int32)
    for one, other in _products(places, places + 1, starts[values + 1] - places - 1):
        yield order[one], order[other]
    for highest in range(width if flips else 0):  # of two that differ, the one without the highest flipped bit asks
        asking = places[(values >> highest & 1) == 0]
        there = values[asking]
        for lower in (flipped for bits in range(flips) for flipped in combinations(range(highest), bits)):
            wanted = there ^ np.int32(sum(1 << bit for bit in (*lower, highest)))
            low = starts[wanted]
            for one, other in _products(asking, low, starts[wanted + 1] - low):
                yield order[one], order[other]


def _asked(starts: Rows, asking: Rows, band: Band) -> Iterator[tuple[Places, Places]]:
    """(place in a table, j of `asking`) that differ in at most the band's flips, each once, in pieces."""
    masks = np.fromiter(_masks(*band[1:]), dtype=np.int32)
    together = max(1, PAIRS_AT_ONCE // max(1, len(asking)))
    for begin in range(0, len(masks), together):
        some = masks[begin : begin + together]
        wanted = np.bitwise_xor.outer(some, asking).ravel()
        low = starts[wanted]
        for one, there in _products(
            np.tile(np.arange(len(asking), dtype=np.int32), len(some)), low, starts[wanted + 1] - low
        ):
            yield there, one


def _masks(width: int, flips: int) -> Iterator[np.int32]:
    """Every way to flip at most so many bits of a band."""
    for flipped in (bits for number in range(flips + 1) for bits in combinations(range(width), number)):
        yield np.int32(sum(1 << bit for bit in flipped))


def _products(asking: Rows, low: Rows, counts: Rows) -> Iterator[tuple[Places, Places]]:
    """`asking[k]` with each of low[k] .. low[k] + counts[k] - 1, at most about `PAIRS_AT_ONCE` together."""
    some = np.flatnonzero(counts)
    asking, low, counts = asking[some], low[some], counts[some]
    ends = counts.cumsum(dtype=np.int64)
    start = 0
    while start < len(asking):
        done = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        number = counts[start:end]
        one = np.repeat(asking[start:end], number)
        begins = np.repeat(low[start:end] - (ends[start:end] - number - done), number)
        yield one.astype(np.int64), begins + np.arange(len(one))
        start = end
