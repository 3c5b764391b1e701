"""Which images are kept and where they go: duplicates, splits, order, shards. Pure functions of listing and content.

Nothing here depends on the number of workers or on what an earlier attempt did. No torch.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.ingest.config import SHARD_BYTES, IngestConfig
from stages.ingest.listing import Item, unit_hash
from stages.ingest.scan import Checked

TAR_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Image:
    """A sound image of the listing with its content."""

    item: Item
    seen: Checked


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An image left out because it equals another."""

    source: str
    of: str
    """The name of the image kept, or `URI#key` of an image of an excluded set."""
    equal: str
    """`bytes`, `pixels` or `near`."""
    same_labels: bool
    distance: int | None = None
    """Of near ones: bits of 64 in which the first looks differ."""
    second: int | None = None
    """Bits of 192 in which the second looks differ."""

    def row(self) -> dict[str, Any]:
        """As it stands in duplicates.jsonl."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ShardPlan:
    """What one shard will hold, in order."""

    path: str
    split: str
    first: int
    """Number of its first image in the split."""
    images: tuple[Image, ...]

    @property
    def keys(self) -> list[str]:
        return [f"{self.split}-{self.first + row:09d}" for row in range(len(self.images))]

    @property
    def sha256(self) -> str:
        """Digest of keys, names, labels and content digests: what a finished shard is compared with."""
        rows = [
            (key, image.item.name, image.item.labels, image.seen.sha256)
            for key, image in zip(self.keys, self.images, strict=True)
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def keep_order(image: Image) -> tuple[bool, str]:
    """Of two alike the one that sorts first is kept: by name, what is outside the split `train` before the rest."""
    return image.item.split == "train", image.item.name


def without_duplicates(images: Sequence[Image], excluded: Mapping[str, str]) -> tuple[list[Image], list[Duplicate]]:
    """Keep one image of each decoded content; `excluded` maps contents that may not appear to what has them.

    Of equals the first by name is kept, one outside the split `train` before one in it: a test image that also stands
    in the training folder leaves the training set.
    """
    kept: dict[str, Image] = {}
    dropped: list[Duplicate] = []
    for image in sorted(images, key=keep_order):
        content = image.seen.pixels_sha256
        if content in excluded:
            dropped.append(Duplicate(image.item.name, excluded[content], "pixels", True))
        elif content in kept:
            other = kept[content]
            equal = "bytes" if other.seen.sha256 == image.seen.sha256 else "pixels"
            same = other.item.labels == image.item.labels
            dropped.append(Duplicate(image.item.name, other.item.name, equal, same))
        else:
            kept[content] = image
    return list(kept.values()), sorted(dropped, key=lambda one: one.source)


def plan_shards(images: Sequence[Image], config: IngestConfig) -> list[ShardPlan]:
    """Cut into splits, shuffle each, and cut into shards; splits in the order of their names."""
    splits: dict[str, list[Image]] = {}
    for image, split in zip(images, _splits(images, config), strict=True):
        splits.setdefault(split, []).append(image)
    plans: list[ShardPlan] = []
    for split, members in sorted(splits.items()):
        members.sort(key=lambda image: (unit_hash("shuffle", config.shuffle_seed, image.item.name), image.item.name))
        first = 0
        for number, shard in enumerate(_cut(members, config)):
            plans.append(ShardPlan(f"{split}-{number:06d}.tar", split, first, tuple(shard)))
            first += len(shard)
    return plans


def _splits(images: Sequence[Image], config: IngestConfig) -> list[str]:
    """The split of each image. By content, every image that decodes alike goes by the lowest digest of its bytes."""
    if isinstance(config.splits, str):
        return [image.item.split or "train" for image in images]
    shares = sorted(config.splits.items())  # by name: the order of a mapping is no part of a recipe
    lowest: dict[str, str] = {}
    for image in images:
        content, digest = image.seen.pixels_sha256, image.seen.sha256
        lowest[content] = min(digest, lowest.get(content, digest))
    return [_share_of(shares, int(lowest[image.seen.pixels_sha256][:16], 16) / 2**64) for image in images]


def _share_of(shares: Sequence[tuple[str, float]], place: float) -> str:
    end = 0.0
    for name, share in shares:
        end += share
        if place < end:
            return name
    return shares[-1][0]


def _cut(images: Sequence[Image], config: IngestConfig) -> Iterable[list[Image]]:
    """Full shards in order, then the rest."""
    shard: list[Image] = []
    size = 0
    for image in images:
        takes = tar_bytes(image)
        by_count, by_bytes = config.images_per_shard, config.shard_bytes or SHARD_BYTES
        if shard and (len(shard) == by_count if by_count else size + takes > by_bytes):
            yield shard
            shard, size = [], 0
        shard.append(image)
        size += takes
    if shard:
        yield shard


def tar_bytes(image: Image) -> int:
    """Bytes an image takes in a tar: two headers, its data and its label in whole blocks."""
    return 3 * TAR_BLOCK + -(-image.seen.size // TAR_BLOCK) * TAR_BLOCK


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
