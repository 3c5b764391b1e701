"""Which images look like another that is kept: found by the first look, made sure of by the second. Pure; no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose.hamming import Places, near_across, near_pairs
from vitpipe.stages.ingest.choose.select import Duplicate, keep_order
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES

SECOND_MOST = 60
"""Bits of the 192 of the second look that copies may differ in; images with nothing in common differ in 96 +- 7."""

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Excluded:
    """One view of a test image: whole, or trimmed."""

    name: str
    """`URI#key`; or the name of a held-out image of this source."""
    look: bytes
    labels: tuple[int, ...] | None = None
    """Where they are numbered as those of this source."""


@dataclass(frozen=True, slots=True)
class _Match:
    """What an image looks like."""

    distance: int
    second: int
    place: int


def near_duplicates(images: Sequence[Image], excluded: Sequence[Excluded], most: int) -> list[Duplicate]:
    """Find each image within `most` bits of an excluded one, or of one that is kept; by name.

    In the order of `select.keep_order`, whatever order they come in; an image like one that was itself left out, but
    like none that is kept, stays. Two are alike when one of them whole is like the other, whole or trimmed. Images
    without structure are like nothing.
    """
    images = sorted(images, key=keep_order)
    seen = [image for image in images if image.seen.likeness is not None]
    looks = [[one.look] for one in excluded] + [_looks(image) for image in seen]
    matches = _matches(looks, len(excluded), most)
    dropped: list[Duplicate] = []
    for place, match in matches.items():
        image = seen[place - len(excluded)]
        there = match.place - len(excluded)
        other: Item | Excluded = seen[there].item if there >= 0 else excluded[match.place]
        same = other.labels is None or other.labels == image.item.labels
        dropped.append(Duplicate(image.item.name, other.name, "near", same, match.distance, match.second))
    return sorted(dropped, key=lambda one: one.source)


def _looks(image: Image) -> list[bytes]:
    """Whole, then trimmed; nothing for an image without structure."""
    looks = image.seen.likeness or b""
    return [looks[start : start + LIKENESS_BYTES] for start in range(0, len(looks), LIKENESS_BYTES)]


def _matches(looks: Sequence[Sequence[bytes]], given: int, most: int) -> dict[int, _Match]:
    """What each place that is left out is like; the first `given` places always stay."""
    owner: dict[bytes, int] = {}
    of = [owner.setdefault(whole, place) for place, (whole, *_) in enumerate(looks)]
    pairs = _verified(looks, np.array(list(owner.values()), dtype=np.int64), most)
    gone = np.zeros(len(looks), dtype=bool)
    matches: dict[int, _Match] = {}
    for place, start, end in pairs.by_later():  # ascending: all that may be kept before it are decided
        kept = np.flatnonzero(~gone[pairs.earlier[start:end]])
        if len(kept) and place >= given:
            gone[place], matches[place] = True, pairs.match(start + int(kept[0]))
    for place in range(given, len(looks)):
        if of[place] != place:
            matches[place] = matches.get(of[place], _Match(0, 0, of[place]))
    return matches


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

    def match(self, number: int) -> _Match:
        return _Match(int(self.distance[number]), int(self.second[number]), int(self.earlier[number]))


def _verified(looks: Sequence[Sequence[bytes]], own: Places, most: int) -> _Pairs:
    """Those of the places `own` that are alike by both looks, of each later place the nearest first."""
    found = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.uint8))]
    for first, second, distance, differ in _alike(looks, own, most):
        low, high = np.minimum(first, second), np.maximum(first, second)
        found.append((high.astype(np.int32), low.astype(np.int32), distance.astype(np.uint8), differ.astype(np.uint8)))
    later, earlier, bits, more = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((earlier, more, bits, later))
    return _Pairs(later[order], earlier[order], bits[order], more[order])


def _alike(looks: Sequence[Sequence[bytes]], own: Places, most: int) -> Iterator[tuple[Places, ...]]:
    """Two of the places `own` and the bits in which their looks differ: the whole of one and any view of the other."""
    if not len(own):
        return
    whole = _words([looks[place][0] for place in own.tolist()])
    for view in range(max(map(len, looks))):  # one at a time: a bound on memory
        places = np.array([place for place in own.tolist() if len(looks[place]) > view], dtype=np.int64)
        seen = _words([looks[place][view] for place in places.tolist()])
        pairs = near_across(whole[:, 0], seen[:, 0], most) if view else near_pairs(whole[:, 0], most)
        for first, second, distance in pairs:
            differ = np.bitwise_count(whole[first, 1:] ^ seen[second, 1:]).sum(axis=1, dtype=np.int64)
            sure = (differ <= SECOND_MOST) & (own[first] != places[second])
            yield own[first[sure]], places[second[sure]], distance[sure], differ[sure]


def _words(looks: Sequence[bytes]) -> Words:
    """(N, 4): the first look, and the three words of the second."""
    return np.frombuffer(b"".join(looks), dtype=">u8").astype(np.uint64).reshape(len(looks), -1)
