"""The search for near-duplicates in one memory, as it was before it was cut into tasks: what these have to find."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose import near
from vitpipe.stages.ingest.choose.crowd import NONE, Crowd, Words, nearness, told
from vitpipe.stages.ingest.choose.duplicate import Duplicate, keep_order
from vitpipe.stages.ingest.choose.exclude import Excluded
from vitpipe.stages.ingest.choose.hamming import Hashes, Lookup, Places, near_pairs
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES
from vitpipe.stages.ingest.table import Texts

View = tuple[Places, Words]
"""Rows that have one view of an image, and how it looks: (N, 4), the first look and the three words of the second."""


class LooksOf:
    """Places: first the `given` looks, then the images that look like anything, in `duplicate.keep_order`."""

    def __init__(self, images: Iterable[Image], given: Sequence[bytes]) -> None:
        self._names, self._labels = Texts(), list[tuple[int, ...]]()
        self._given, once = len(given), dict[tuple[int, ...], tuple[int, ...]]()
        trains, data, views = bytearray(), bytearray(b"".join(given)), array("B", [1] * len(given))
        for image in images:
            if image.seen.likeness is not None:
                is_train, name = keep_order(image)
                trains.append(is_train)
                self._names.append(name)
                self._labels.append(once.setdefault(image.item.labels, image.item.labels))
                data += image.seen.likeness
                views.append(len(image.seen.likeness) // LIKENESS_BYTES)
        order = sorted(range(len(trains)), key=lambda row: (trains[row], self._names[row]))
        self._rows = np.array(order, dtype=np.int64)
        self._words = np.frombuffer(data, dtype=">u8").astype(np.uint64).reshape(-1, LIKENESS_BYTES // 8)
        places = np.concatenate([np.arange(len(given)), len(given) + self._rows])
        self._views = np.array(views, dtype=np.int64)[places]
        ends = np.cumsum(np.array(views, dtype=np.int64))
        self._starts = ends[places] - self._views

    def image(self, place: int) -> tuple[str, tuple[int, ...]]:
        """Name and labels of a place behind the given ones."""
        row = int(self._rows[place - self._given])
        return self._names[row], self._labels[row]

    def distinct(self) -> tuple[Places, Places]:
        """The places at which a look of the whole image comes first, ascending; and of each place which of them."""
        whole = np.ascontiguousarray(self._words[self._starts]).view([("", np.uint64)] * (LIKENESS_BYTES // 8)).ravel()
        _, first, which = np.unique(whole, return_index=True, return_inverse=True)
        return np.sort(first), first[which]

    def views(self, own: Places) -> list[View]:
        """Each view with the rows of `own` that have it, whole first."""
        counts, starts = self._views[own], self._starts[own]
        found: list[View] = []
        for view in range(max(1, counts.max(initial=1))):
            rows: npt.NDArray[np.int64] = np.flatnonzero(counts > view)
            found.append((rows, self._words[starts[rows] + view]))
        return found


class NearDuplicates(NamedTuple):
    """What was found."""

    dropped: list[Duplicate]
    """By name."""
    in_part: int
    """Images that were compared with the first `MOST_KEPT` kept ones alone, of all that may be alike."""


def near_duplicates(
    images: Iterable[Image], excluded: Sequence[Excluded], most: int, crowd: set[int | str] | None = None
) -> NearDuplicates:
    """Find each image within `most` bits of an excluded one, or of one that is kept.

    In the order of `duplicate.keep_order`, whatever order they come in; an image like one that was itself left out, but
    like none that is kept, stays; those that look the same in all 256 bits fare alike. Two are alike when one of them
    whole is like the other, whole or trimmed. Images without structure are like nothing.
    """
    seen = LooksOf(images, [one.look for one in excluded])
    matches, in_part = _matches(seen, len(excluded), most, crowd)
    dropped: list[Duplicate] = []
    for place, match in matches.items():
        (name, labels), (distance, second, at) = seen.image(place), told(match)
        other, its_labels = (excluded[at].name, None) if at < len(excluded) else seen.image(at)
        dropped.append(Duplicate(name, other, "near", its_labels in (None, labels), distance, second))
    return NearDuplicates(sorted(dropped, key=lambda one: one.source), in_part)


def _matches(seen: LooksOf, given: int, most: int, names: set[int | str] | None) -> tuple[dict[int, int], int]:
    """The nearness of what each place that is left out is like, and how many were compared in part.

    The first `given` places always stay.
    """
    own, of = seen.distinct()
    views = seen.views(own)
    crowded = _crowded(views, most)
    if names is not None:  # numbers of excluded looks, and names of images
        crowded = np.array([(place if place < given else seen.image(place)[0]) in names for place in own.tolist()])
    pairs = _verified(views, own, crowded, most)
    crowd = Crowd(
        own[crowded], [_some(view, crowded) for view in views], given, (most, near.SECOND_MOST), near.MOST_KEPT
    )
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
            sure = (differ <= near.SECOND_MOST) & (first != rows[other])
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
            for first, second, distance in Lookup(whole[there], most).near(looks[asking]):
                yield there[first], asking[second], distance


def _crowded(views: Sequence[View], most: int) -> npt.NDArray[np.bool_]:
    """Which rows are near to too many others: of those alone it is reckoned that are compared with so many."""
    whole = views[0][1][:, 0]
    found = np.zeros(len(whole), dtype=bool)
    there = Lookup(whole[np.random.default_rng(0).permutation(len(whole))], most)
    for rows, looks in views:
        many = np.flatnonzero(there.compared_with(looks[:, 0]) > near.CROWD)
        found[rows[many[there.likely_near(looks[many, 0]) > near.CROWD]]] = True
    return found


def _some(view: View, wanted: npt.NDArray[np.bool_]) -> View:
    """A view of the wanted rows alone, by their numbers among these."""
    rows, looks = view
    numbers = np.cumsum(wanted) - 1
    return numbers[rows[wanted[rows]]], looks[wanted[rows]]
