"""What each shard will hold: ordered images cut by their number or bytes, their sizes gone through once. No torch.

Nothing here depends on the number of workers or on what an earlier attempt did.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from vitpipe.infra.storage.store import Store
from vitpipe.stages.ingest.config import SHARD_BYTES, IngestConfig
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.seen import images_of
from vitpipe.stages.ingest.parts.rows import rows_between
from vitpipe.stages.ingest.parts.sheets import Sheets

TAR_BLOCK = 512


@dataclass(frozen=True)
class Range:
    """Some rows of a range of the order."""

    rows: Sheets
    start: int
    stop: int


class StoredImages(Sequence[Image]):
    """Images that lie in the store, in ranges; read when they are gone through. Picklable."""

    def __init__(self, node: Store, ranges: Sequence[Range]) -> None:
        self._node, self._ranges = node, tuple(ranges)

    def __len__(self) -> int:
        return sum(one.stop - one.start for one in self._ranges)

    def __iter__(self) -> Iterator[Image]:
        for one in self._ranges:
            yield from images_of(rows_between(one.rows, self._node, one.start, one.stop))

    @overload
    def __getitem__(self, place: int) -> Image: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Image]: ...

    def __getitem__(self, place: int | slice) -> Image | Sequence[Image]:
        return tuple(self)[place]


@dataclass(frozen=True)
class ShardPlan:
    """What one shard will hold, in order."""

    path: str
    split: str
    first: int
    """Number of its first image in the split."""
    images: Sequence[Image]
    image_bytes: int

    def in_hand(self) -> "ShardPlan":
        """The same with each image made once, for who goes through them several times."""
        return replace(self, images=tuple(self.images))

    @property
    def keys(self) -> list[str]:
        """Names of its samples, in order: split and number."""
        return [f"{self.split}-{self.first + row:09d}" for row in range(len(self.images))]

    @property
    def sha256(self) -> str:
        """Digest of keys, names, labels and content digests: what a finished shard is compared with."""
        rows = [
            (key, image.item.name, image.item.labels, image.seen.sha256)
            for key, image in zip(self.keys, self.images, strict=True)
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Ordered:
    """One range of a split's order."""

    rows: Sheets
    sizes: Sheets
    """Bytes of each image, in one table."""


def plan_shards(splits: Mapping[str, Iterable[Ordered]], config: IngestConfig, node: Store) -> list[ShardPlan]:
    """Cut the images of each split into shards, in the order of the names of the splits."""
    return [plan for split, ordered in sorted(splits.items()) for plan in _of_split(split, ordered, config, node)]


def _of_split(split: str, ordered: Iterable[Ordered], config: IngestConfig, node: Store) -> Iterator[ShardPlan]:
    shard, number, first = _Shard(config), 0, 0
    for part in ordered:
        sizes = part.sizes.read(node, 0).column("bytes").to_numpy()
        ends, start = np.cumsum(tar_bytes(sizes)), 0
        while start < len(sizes):
            stop = shard.fits(ends, start)
            if stop == start:  # full
                yield shard.plan(split, number, first, node)
                number, first, shard = number + 1, first + shard.images, _Shard(config)
                continue
            shard.take(Range(part.rows, start, stop), int(sizes[start:stop].sum()), _between(ends, start, stop))
            start = stop
    if shard.images:
        yield shard.plan(split, number, first, node)


class _Shard:
    """One that is being filled."""

    def __init__(self, config: IngestConfig) -> None:
        self._most_images, self._most_bytes = config.images_per_shard, config.shard_bytes or SHARD_BYTES
        self._ranges = list[Range]()
        self.images, self._image_bytes, self._tar_bytes = 0, 0, 0

    def fits(self, ends: npt.NDArray[np.int64], start: int) -> int:
        """Up to which row it can take those from `start` on; its first image always."""
        if self._most_images:
            return min(start + self._most_images - self.images, len(ends))
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + self._most_bytes - self._tar_bytes, side="right"))
        return max(stop, start if self.images else start + 1)

    def take(self, rows: Range, image_bytes: int, in_tar: int) -> None:
        """Take some rows."""
        self._ranges.append(rows)
        self.images += rows.stop - rows.start
        self._image_bytes += image_bytes
        self._tar_bytes += in_tar

    def plan(self, split: str, number: int, first: int, node: Store) -> ShardPlan:
        """What it holds now."""
        return ShardPlan(f"{split}-{number:06d}.tar", split, first, StoredImages(node, self._ranges), self._image_bytes)


def _between(ends: npt.NDArray[np.int64], start: int, stop: int) -> int:
    return int(ends[stop - 1]) - (int(ends[start - 1]) if start else 0)


def tar_bytes(sizes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Bytes that images take in a tar: two headers, the data and the label in whole blocks."""
    return 3 * TAR_BLOCK + -(-sizes.astype(np.int64) // TAR_BLOCK) * TAR_BLOCK
