"""Which images look like another that is kept: found by the first look, made sure of by the second. Pure; no torch.

Pairs are searched for, but among images that look like very many others: a crowd is gone through by those it keeps.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose.crowd import NONE, Crowd, nearness, told
from vitpipe.stages.ingest.choose.duplicate import Duplicate
from vitpipe.stages.ingest.choose.hamming import Hashes, Places, compared_with, likely_near, near_across, near_pairs
from vitpipe.stages.ingest.choose.looks import LooksOf, View
from vitpipe.stages.ingest.look.image import Image

SECOND_MOST = 60
"""Bits of the 192 of the second look that copies may differ in; images with nothing in common differ in 96 +- 7."""
CROWD = 500
"""How many others may be near an image by the first look before it counts as one of a crowd."""
MOST_KEPT = 10_000
"""How many kept images that may be alike one of a crowd is compared with, at most: the first."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """One view of a test image: whole, or trimmed."""

    name: str
    """`URI#key`; or the name of a held-out image of this source."""
    look: bytes
    labels: tuple[int, ...] | None = None
    """Where they are numbered as those of this source."""


class NearDuplicates(NamedTuple):
    """What was found."""

    dropped: list[Duplicate]
    """By name."""
    in_part: int
    """Images that were compared with the first `MOST_KEPT` kept ones alone, of all that may be alike."""


def near_duplicates(images: Iterable[Image], excluded: Sequence[Excluded], most: int) -> NearDuplicates:
    """Find each image within `most` bits of an excluded one, or of one that is kept.

    In the order of `duplicate.keep_order`, whatever order they come in; an image like one that was itself left out, but
    like none that is kept, stays; those that look the same in all 256 bits fare alike. Two are alike when one of them
    whole is like the other, whole or trimmed. Images without structure are like nothing.
    """
    seen = LooksOf(images, [one.look for one in excluded])
    matches, in_part = _matches(seen, len(excluded), most)
    dropped: list[Duplicate] = []
    for place, match in matches.items():
        (name, labels), (distance, second, at) = seen.image(place), told(match)
        other, its_labels = (excluded[at].name, excluded[at].labels) if at < len(excluded) else seen.image(at)
        dropped.append(Duplicate(name, other, "near", its_labels in (None, labels), distance, second))
    return NearDuplicates(sorted(dropped, key=lambda one: one.source), in_part)


def _matches(seen: LooksOf, given: int, most: int) -> tuple[dict[int, int], int]:
    """The nearness of what each place that is left out is like, and how many were compared in part.

    The first `given` places always stay.
    """
    own, of = seen.distinct()
    views = seen.views(own)
    crowded = _crowded(views, most)
    pairs = _verified(views, own, crowded, most)
    crowd = Crowd(own[crowded], [_some(view, crowded) for view in views], given, (most, SECOND_MOST), MOST_KEPT)
    found = {place: (start, end) for place, start, end in pairs.by_later()}
    gone = np.zeros(len(of), dtype=bool)
    matches: dict[int, int] = {}
    for place in sorted({*found, *crowd.places}):  # all before it are decided
        start, end = found.get(place, (0, 0))
        kept = np.flatnonzero(~gone[pairs.earlier[start:end]])
        match = min(pairs.match(start + int(kept[0])) if len(kept) else NONE, crowd.nearest(place))
        if match != NONE and place >= given:
            gone[place], matches[place] = True, match
        else:
            crowd.keep(place)
    alike = np.flatnonzero(of != np.arange(len(of)))
    for place in alike[alike >= given].tolist():
        first = int(of[place])
        matches[place] = matches.get(first, first)  # a nearness of no bits
    return matches, crowd.in_part


class _Pairs(NamedTuple):
    """Two places each: in 10 bytes, as of many images that look alike there are many."""

    later: npt.NDArray[np.int32]
    earlier: npt.NDArray[np.int32]
    distance: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8]

    def by_later(self) -> Iterator[tuple[int, int, int]]:
        """Each later place, ascending, and which pairs are its own."""
        places, starts = np.unique(self.later, return_index=True)
        ends = np.append(starts, len(self.later))[1:]
        return zip(places.tolist(), starts.tolist(), ends.tolist(), strict=True)

    def match(self, number: int) -> int:
        """The nearness of a pair."""
        return int(
            nearness(*(column[[number]].astype(np.int64) for column in (self.distance, self.second, self.earlier)))[0]
        )


def _verified(views: Sequence[View], own: Places, crowded: npt.NDArray[np.bool_], most: int) -> _Pairs:
    """Those of the places `own`, not both crowded, that are alike by both looks, of each later the nearest first."""
    found = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.uint8))]
    for first, second, distance, differ in _alike(views, crowded, most):
        low, high = own[np.minimum(first, second)], own[np.maximum(first, second)]
        found.append((high.astype(np.int32), low.astype(np.int32), distance.astype(np.uint8), differ.astype(np.uint8)))
    later, earlier, bits, more = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((earlier, more, bits, later))
    return _Pairs(later[order], earlier[order], bits[order], more[order])


def _alike(views: Sequence[View], crowded: npt.NDArray[np.bool_], most: int) -> Iterator[tuple[Places, ...]]:
    """Two rows and the bits in which their looks differ: the whole of one and any view of the other."""
    for number, (rows, looks) in enumerate(views):  # one at a time: a bound on memory
        whole = views[0][1]
        for first, other, distance in _near(whole[:, 0], looks[:, 0], crowded, crowded[rows], number, most):
            differ = np.bitwise_count(whole[first, 1:] ^ looks[other, 1:]).sum(axis=1, dtype=np.int64)
            sure = (differ <= SECOND_MOST) & (first != rows[other])
            yield first[sure], rows[other[sure]], distance[sure], differ[sure]


def _near(
    whole: Hashes,
    looks: Hashes,
    crowded: npt.NDArray[np.bool_],
    of_crowded: npt.NDArray[np.bool_],
    view: int,
    most: int,
) -> Iterator[tuple[Places, Places, Places]]:
    """Pairs of one whole and one look, not both crowded; of the wholes among themselves each pair once."""
    apart, crowd = np.flatnonzero(~crowded), np.flatnonzero(crowded)
    if not view:
        for first, second, distance in near_pairs(whole[apart], most):
            yield apart[first], apart[second], distance
    asked = [(apart, np.flatnonzero(of_crowded) if not view else np.arange(len(looks)))]
    if view:
        asked.append((crowd, np.flatnonzero(~of_crowded)))
    for there, asking in asked:
        if len(there) and len(asking):
            for first, second, distance in near_across(whole[there], looks[asking], most):
                yield there[first], asking[second], distance


def _crowded(views: Sequence[View], most: int) -> npt.NDArray[np.bool_]:
    """Which rows are near to too many others: of those alone it is reckoned that are compared with so many."""
    whole = views[0][1][:, 0]
    found = np.zeros(len(whole), dtype=bool)
    for rows, looks in views:
        many = np.flatnonzero(compared_with(whole, looks[:, 0], most) > CROWD)
        found[rows[many[likely_near(whole, looks[many, 0], most) > CROWD]]] = True
    return found


def _some(view: View, wanted: npt.NDArray[np.bool_]) -> View:
    """A view of the wanted rows alone, by their numbers among these."""
    rows, looks = view
    numbers = np.cumsum(wanted) - 1
    return numbers[rows[wanted[rows]]], looks[wanted[rows]]
