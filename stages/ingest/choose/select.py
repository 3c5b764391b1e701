"""Which images are kept and where they go: duplicates, splits, order, shards. Pure functions of listing and content.

Nothing here depends on the number of workers or on what an earlier attempt did. No torch.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.config import SHARD_BYTES, IngestConfig
from vitpipe.stages.ingest.listing import unit_hash
from vitpipe.stages.ingest.look.image import Digests, Image, ImageTable, Numbers
from vitpipe.stages.ingest.table import View

TAR_BLOCK = 512
SORTED_APART = 16
"""Parts in which images are sorted by digest."""


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
    """Bits of 64 in which the first looks of near ones differ."""
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


def keep_order(image: Image) -> tuple[bool, str]:
    """The order in which the first of two alike is kept: what is outside the split `train`, then by name."""
    return image.item.split == "train", image.item.name


def without_duplicates(images: View[Image], excluded: Mapping[str, str]) -> tuple[View[Image], list[Duplicate]]:
    """Keep one image of each decoded content; `excluded` maps contents that may not appear to what has them.

    Of equals the first by name is kept, one outside the split `train` before one in it: a test image that also stands
    in the training folder leaves the training set. Takes the images by name and gives them in `keep_order`.
    """
    table = _table(images)
    trains = table.items.split_codes(["train"])[images.rows] == 0
    rows = np.asarray(images.rows)[np.argsort(trains, kind="stable")]
    first, barred = np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), dtype=bool)
    unwanted = np.array([bytes.fromhex(content) for content in excluded], dtype="S32")
    for places in _apart(table, rows):  # first: of each, the place of its equal that comes first
        content = table.column("pixels_sha256")[rows[places]]
        order = np.argsort(content, kind="stable")
        is_first = _begins(content[order])
        first[places[order]] = places[order[is_first]][np.cumsum(is_first) - 1]
        barred[places] = np.isin(content, unwanted)
    gone = barred | (first != np.arange(len(rows)))
    dropped = [
        _duplicate(table.row(int(rows[place])), table.row(int(rows[first[place]])), excluded)
        for place in np.flatnonzero(gone).tolist()
    ]
    return View(table, rows[~gone]), sorted(dropped, key=lambda one: one.source)


def _duplicate(image: Image, other: Image, excluded: Mapping[str, str]) -> Duplicate:
    where = excluded.get(image.seen.pixels_sha256)
    if where is not None:
        return Duplicate(image.item.name, where, "pixels", True)
    equal = "bytes" if other.seen.sha256 == image.seen.sha256 else "pixels"
    return Duplicate(image.item.name, other.item.name, equal, other.item.labels == image.item.labels)


def _table(images: View[Image]) -> ImageTable:
    assert isinstance(images.table, ImageTable)
    return images.table


def plan_shards(images: View[Image], config: IngestConfig) -> list[ShardPlan]:
    """Cut into splits, shuffle each, and cut into shards; splits in the order of their names."""
    table = _table(images)
    sizes = tar_bytes(table.column("size"))
    plans: list[ShardPlan] = []
    for split, rows in _splits(images, config):
        hashes = (unit_hash("shuffle", config.shuffle_seed, table.name(int(row))) for row in rows)
        rows = rows[np.lexsort((rows, np.fromiter(hashes, dtype=np.float64, count=len(rows))))]  # rows are by name
        first = 0
        for number, count in enumerate(_cut(sizes[rows], config)):
            shard = View(table, rows[first : first + count])
            image_bytes = int(table.column("size")[shard.rows].sum())
            plans.append(ShardPlan(f"{split}-{number:06d}.tar", split, first, shard, image_bytes))
            first += count
    return plans


def _splits(images: View[Image], config: IngestConfig) -> Iterator[tuple[str, Numbers]]:
    """The rows of each split. By content, every image that decodes alike goes by the lowest digest of its bytes."""
    table, rows = _table(images), np.asarray(images.rows)
    if isinstance(config.splits, str):
        names = sorted({name or "train" for name in table.items.splits})
        of_each = table.items.split_codes(names)[rows]
        of_each[of_each < 0] = names.index("train") if "train" in names else -1
    else:
        shares = sorted(config.splits.items())  # by name: the order of a mapping is no part of a recipe
        names = [name for name, _ in shares]
        ends = np.array(list(accumulate((share for _, share in shares), initial=0.0))[1:])
        lowest = np.zeros(len(rows))
        for places in _apart(table, rows):
            some = rows[places]
            lowest[places] = _lowest(table.column("pixels_sha256")[some], table.column("sha256")[some])
        of_each = np.minimum(np.searchsorted(ends, lowest, side="right"), len(names) - 1)
    for number, name in enumerate(names):
        members = rows[of_each == number]
        if len(members):
            yield name, members


def _lowest(content: Digests, digest: Digests) -> npt.NDArray[np.float64]:
    """Where in [0, 1) the lowest digest lies among those of equal content."""
    order = np.argsort(digest, kind="stable")
    order = order[np.argsort(content[order], kind="stable")]
    is_first = _begins(content[order])
    begins = np.frombuffer(digest[order[is_first]].tobytes(), dtype=">u8")[::4]
    places = np.empty(len(order), dtype=np.float64)
    places[order] = (begins.astype(np.float64) / 2**64)[np.cumsum(is_first) - 1]
    return places


def _apart(table: ImageTable, rows: Numbers) -> Iterator[Numbers]:
    """Places in `rows`, in order, some at a time; what is equal comes together. A bound on the memory of sorting."""
    beginning = np.ascontiguousarray(table.column("pixels_sha256").astype("S1")).view(np.uint8)[rows]
    for begin in range(0, 256, 256 // SORTED_APART):
        yield np.flatnonzero((beginning >= begin) & (beginning < begin + 256 // SORTED_APART))


def _begins(ordered: Digests) -> npt.NDArray[np.bool_]:
    """Whether each is another than the one before it."""
    begins = np.ones(len(ordered), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    return begins


def _cut(sizes: Numbers, config: IngestConfig) -> Iterator[int]:
    """Images of each full shard in order, then of the rest."""
    count, by_count, by_bytes = len(sizes), config.images_per_shard, config.shard_bytes or SHARD_BYTES
    ends = np.cumsum(sizes)
    first = 0
    while first < count:
        before = int(ends[first - 1]) if first else 0
        last = first + by_count if by_count else int(np.searchsorted(ends, before + by_bytes, side="right"))
        last = min(max(last, first + 1), count)
        yield last - first
        first = last


def tar_bytes(sizes: npt.NDArray[np.integer[Any]]) -> Numbers:
    """Bytes that images take in a tar: two headers, the data and the label in whole blocks."""
    return 3 * TAR_BLOCK + -(-sizes.astype(np.int64) // TAR_BLOCK) * TAR_BLOCK


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
