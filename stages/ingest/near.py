"""Which images look like another that is kept: found by the first look, made sure of by the second. Pure; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.ingest.hamming import near_pairs
from stages.ingest.image import Image
from stages.ingest.likeness import LIKENESS_BYTES
from stages.ingest.select import Duplicate, keep_order

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


def without_near(
    images: Sequence[Image], excluded: Sequence[Excluded], most: int
) -> tuple[list[Image], list[Duplicate]]:
    """Leave out each image within `most` bits of an excluded one, or of one that is kept.

    In the order of `select.keep_order`, whatever order they come in; an image like one that was itself left out, but
    like none that is kept, stays. Images without structure are like nothing.
    """
    kept, dropped = _left_out(sorted(images, key=keep_order), excluded, most)
    held_out = [image for image in kept if image.item.is_held_out]
    trimmed = [Excluded(one.item.name, look, one.item.labels) for one in held_out for look in _looks(one)[1:]]
    if trimmed:  # as with the excluded sets: what trains may not be a part of what is tested
        train, late = _left_out([image for image in kept if not image.item.is_held_out], trimmed, most)
        kept, dropped = [*held_out, *train], [*dropped, *late]
    return sorted(kept, key=keep_order), sorted(dropped, key=lambda one: one.source)


def _left_out(images: Sequence[Image], excluded: Sequence[Excluded], most: int) -> tuple[list[Image], list[Duplicate]]:
    """Of images in the order of `keep_order`, by their first view."""
    seen = [image for image in images if image.seen.likeness is not None]
    looks = [one.look for one in excluded] + [_looks(image)[0] for image in seen]
    matches = _matches(looks, len(excluded), most)
    dropped: list[Duplicate] = []
    for place, match in matches.items():
        image = seen[place - len(excluded)]
        if match.place < len(excluded):
            of, labels = excluded[match.place].name, excluded[match.place].labels
        else:
            other = seen[match.place - len(excluded)].item
            of, labels = other.name, other.labels
        same = labels is None or labels == image.item.labels
        dropped.append(Duplicate(image.item.name, of, "near", same, match.distance, match.second))
    gone = {one.source for one in dropped}
    return [image for image in images if image.item.name not in gone], dropped


def _looks(image: Image) -> list[bytes]:
    """Whole, then trimmed; nothing for an image without structure."""
    looks = image.seen.likeness or b""
    return [looks[start : start + LIKENESS_BYTES] for start in range(0, len(looks), LIKENESS_BYTES)]


def _matches(looks: Sequence[bytes], given: int, most: int) -> dict[int, _Match]:
    """What each place that is left out is like; the first `given` places always stay."""
    owner: dict[bytes, int] = {}
    of = [owner.setdefault(look, place) for place, look in enumerate(looks)]
    own = np.array(list(owner.values()), dtype=np.int64)
    near = _verified(looks, own, most)
    matches: dict[int, _Match] = {}
    for place in own.tolist():  # ascending: all that may be kept before it are decided
        kept = [match for match in near.get(place, ()) if match.place not in matches]
        if kept and place >= given:
            matches[place] = min(kept, key=lambda match: (match.distance, match.second, match.place))
    for place in range(given, len(looks)):
        if of[place] != place:
            matches[place] = matches.get(of[place], _Match(0, 0, of[place]))
    return matches


def _verified(looks: Sequence[bytes], own: npt.NDArray[np.int64], most: int) -> dict[int, list[_Match]]:
    """For each of the places `own` the earlier ones among them that it is like, by both looks."""
    near: dict[int, list[_Match]] = {}
    if not len(own):
        return near
    words: Words = np.frombuffer(b"".join(looks[place] for place in own.tolist()), dtype=">u8").astype(np.uint64)
    words = words.reshape(len(own), -1)
    for first, second, distance in near_pairs(words[:, 0], most):
        differ = np.bitwise_count(words[first, 1:] ^ words[second, 1:]).sum(axis=1, dtype=np.int64)
        sure = np.flatnonzero(differ <= SECOND_MOST)
        found = (own[first[sure]], own[second[sure]], distance[sure], differ[sure])
        for low, high, bits, second_bits in zip(*(part.tolist() for part in found), strict=True):
            near.setdefault(high, []).append(_Match(bits, second_bits, low))
    return near
