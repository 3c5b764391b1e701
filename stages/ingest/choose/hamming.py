"""All pairs of 64-bit hashes within a few bits of each other, without comparing all with all. No torch.

Multi-index hashing (Norouzi, Punjani, Fleet 2012): the bits are cut into bands; two hashes that differ in at most n
bits differ in at most n // bands bits of some band, so only those that agree in a band up to a few flips are compared.
With bands as wide as log2 of the number of hashes, a band's bucket holds about one hash: memory is linear, and for a
given n time is linear too, up to the number of flips, which grows slowly with the width.
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb

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


def near_pairs(hashes: Hashes, most: int) -> Iterator[tuple[Places, Places, Places]]:
    """Pairs (i, j) with i < j and their distance, at most `most`, for distinct `hashes` (N,); each pair once."""
    bands = _bands(len(hashes), most)
    for number, (shift, width, flips) in enumerate(bands):
        for first, second in _candidates(_band(hashes, shift, width), width, flips):
            distance = np.bitwise_count(hashes[first] ^ hashes[second])
            close = distance <= most
            first, second, distance = first[close], second[close], distance[close]
            new = _unseen(hashes[first] ^ hashes[second], bands[:number])
            low, high = np.minimum(first, second)[new], np.maximum(first, second)[new]
            yield low, high, distance[new].astype(np.int64)


def near_across(hashes: Hashes, others: Hashes, most: int) -> Iterator[tuple[Places, Places, Places]]:
    """Pairs (i of `hashes`, j of `others`) and their distance, at most `most`; each pair once."""
    for first, second, differ in Lookup(hashes, most).met(others):
        distance = np.bitwise_count(differ)
        close = distance <= most
        yield first[close], second[close], distance[close].astype(np.int64)


def compared_with(hashes: Hashes, others: Hashes, most: int) -> Places:
    """With how many of `hashes` each of `others` is compared."""
    found = np.zeros(len(others), dtype=np.int64)
    for shift, width, flips in _bands(len(hashes), most):
        _, starts = _table(_band(hashes, shift, width), width)
        asking, sizes = _band(others, shift, width).astype(np.int32), np.diff(starts)
        for mask in _masks(width, flips):
            found += sizes[asking ^ mask]
    return found


def likely_near(hashes: Hashes, others: Hashes, most: int) -> npt.NDArray[np.float64]:
    """How many of `hashes` are within `most` bits of each of `others`, reckoned from `SAMPLE` of each bucket."""
    mixed = hashes[np.random.default_rng(0).permutation(len(hashes))]
    places, found = np.arange(len(others), dtype=np.int32), np.zeros(len(others))
    for shift, width, flips in _bands(len(mixed), most):
        order, starts = _table(_band(mixed, shift, width), width)
        asking, near = _band(others, shift, width).astype(np.int32), np.zeros(len(others))
        for mask in _masks(width, flips):
            low, end = starts[asking ^ mask], starts[(asking ^ mask) + 1]
            taken = np.minimum(end - low, SAMPLE)
            for one, there in _products(places, low, taken):
                close = np.bitwise_count(mixed[order[there]] ^ others[one]) <= most
                near += np.bincount(one[close], minlength=len(others)) * (end - low) / np.maximum(taken, 1)
        found = np.maximum(found, near)
    return found


class Lookup:
    """Hashes that others are compared with."""

    def __init__(self, hashes: Hashes, most: int) -> None:
        self._hashes, self._bands = hashes, _bands(len(hashes), most)
        self._tables = [_table(_band(hashes, shift, width), width) for shift, width, _ in self._bands]

    def met(self, others: Hashes) -> Iterator[tuple[Places, Places, Hashes]]:
        """Pairs (i, j of `others`) that agree in a band up to its flips, and the bits that differ; each pair once."""
        for number, ((shift, width, flips), (order, starts)) in enumerate(zip(self._bands, self._tables, strict=True)):
            for there, second in _asked(starts, _band(others, shift, width).astype(np.int32), width, flips):
                first = order[there]
                differ = self._hashes[first] ^ others[second]
                new = _unseen(differ, self._bands[:number])
                yield first[new], second[new], differ[new]


def _bands(count: int, most: int) -> list[tuple[int, int, int]]:
    """(shift, width, flips) of each band: those with which the fewest hashes are compared."""
    plans = [_cut(number, most) for number in range(FEWEST, BITS // 8 + 1)]
    return min(plans, key=lambda plan: sum(_probes(width, flips) * (1 + count / 2**width) for _, width, flips in plan))


def _cut(number: int, most: int) -> list[tuple[int, int, int]]:
    """`number` bands. The first `most % number + 1` may differ in `most // number` bits, the rest in one less."""
    edges = [BITS * place // number for place in range(number + 1)]
    flips = [most // number - (place > most % number) for place in range(number)]
    cut = zip(edges, edges[1:], flips, strict=False)
    return [(start, end - start, flip) for start, end, flip in cut if flip >= 0]


def _probes(width: int, flips: int) -> int:
    return sum(comb(width, bits) for bits in range(flips + 1))


def _band(hashes: Hashes, shift: int, width: int) -> Places:
    return ((hashes >> np.uint64(shift)) & np.uint64(2**width - 1)).astype(np.int64)


def _candidates(band: Places, width: int, flips: int) -> Iterator[tuple[Places, Places]]:
    """Pairs whose band differs in at most `flips` bits, each once, in pieces."""
    order, starts = _table(band, width)
    values = band[order].astype(np.int32)
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


def _asked(starts: Rows, asking: Rows, width: int, flips: int) -> Iterator[tuple[Places, Places]]:
    """(place in a table, j of `asking`) that differ in at most `flips` bits, each once, in pieces."""
    masks = np.fromiter(_masks(width, flips), dtype=np.int32)
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


def _table(band: Places, width: int) -> tuple[Places, Rows]:
    """Places sorted by their value in the band, and where each value begins among them."""
    order = np.argsort(band, kind="stable")
    values = band[order].astype(np.int32)
    return order, np.searchsorted(values, np.arange(2**width + 1, dtype=np.int32)).astype(np.int32)


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


def _unseen(difference: Hashes, earlier: list[tuple[int, int, int]]) -> npt.NDArray[np.bool_]:
    """Whether no earlier band has met the pair."""
    new = np.ones(len(difference), dtype=bool)
    for shift, width, flips in earlier:
        new &= np.bitwise_count(_band(difference, shift, width)) > flips
    return new
