"""The images of one split by number: mapped tars, read through their index.

Knows manifest, index and cache; not the order, nor what the pixels are for. No torch.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import Pixels, decode, decode_part
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.index_checks import check_index, check_rows
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.manifest import Manifest, load_index
from vitpipe.stages.images.members import label_members
from vitpipe.stages.images.order import MAX_STREAMS
from vitpipe.stages.images.rows import IndexRows
from vitpipe.stages.images.tars import ShardReader
from vitpipe.stages.images.united import united

DECODED_BYTES = 512_000_000
"""A split whose pixels take no more than this together is kept decoded in memory, filled as images are read."""
MAPPED_TABLES = 8192
"""Shards whose rows stay mapped: an order may read from many small shards at a time, the rows of which are files."""
HELD_TABLES = MAX_STREAMS + 64
"""Shards whose rows are held in memory where the disk does not take them."""
_FETCHES = 8


class Split:
    """Images 0..num_images-1 of a split, in manifest order; several sets follow one another. Safe for threads.

    UsageError when the split has no images; IntegrityError when an index or a shard is not what its record lists.
    """

    def __init__(
        self, shards: ShardSet | Sequence[ShardSet], split: str, cache: Path | ShardCache, labelled: bool = True
    ) -> None:
        self.sets = (shards,) if isinstance(shards, ShardSet) else tuple(shards)
        self.split = split
        self.manifests: tuple[Manifest, ...] = united(self.sets, labelled)
        self.labelled = labelled
        self.multi_label = labelled and any(manifest.multi_label for manifest in self.manifests)
        owned = [(place, entry) for place, one in enumerate(self.manifests) for entry in one.of(split)]
        self.owners = [place for place, _ in owned]
        """The place in `sets` of the set that each shard belongs to."""
        self.entries = [entry for _, entry in owned]
        self.counts = np.array([entry.count for entry in self.entries], dtype=np.int64)
        self.num_images = int(self.counts.sum())
        self._starts = np.concatenate(([0], self.counts.cumsum()[:-1]))
        self._tars = ShardReader(cache if isinstance(cache, ShardCache) else ShardCache(cache))
        self._mapped = lru_cache(maxsize=MAPPED_TABLES)(self._map_rows)
        self._held = lru_cache(maxsize=HELD_TABLES)(self._read_rows)
        self._url = lru_cache(maxsize=HELD_TABLES)(self._find_url)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, a label being a place in them."""
        return self.manifests[0].classes

    @cached_property
    def labels(self) -> Ints | npt.NDArray[np.float32]:
        """Classes (N,) as int64, or 0/1 as float32 (N, K) for a multi-label set; all 0 without `labelled`."""
        if not self.labelled:
            return np.zeros(self.num_images, dtype=np.int64)
        tables = answers(self.rows, range(len(self.entries)), _FETCHES)
        return np.concatenate([self._array(rows.label_columns) for rows in tables])

    def labels_of(self, numbers_B: Ints) -> Ints | npt.NDArray[np.float32]:
        """Labels of some images (B,), reading no index but those of their shards."""
        if not self.labelled:
            return np.zeros(len(numbers_B), dtype=np.int64)
        places = (self.locate(number) for number in numbers_B.tolist())
        return np.concatenate([self._array(self.rows(shard).label_columns[row : row + 1]) for shard, row in places])

    def _array(self, labels_BL: npt.NDArray[np.int32]) -> Ints | npt.NDArray[np.float32]:
        if not self.multi_label:
            return labels_BL[:, 0].astype(np.int64)
        hot = np.zeros((len(labels_BL), len(self.classes)), dtype=np.float32)
        numbers, places = np.nonzero(labels_BL >= 0)
        hot[numbers, labels_BL[numbers, places]] = 1
        return hot

    def rows(self, shard: int) -> IndexRows:
        """What reading needs of a shard's index: mapped from the cache, put there if need be."""
        return self._mapped(shard) or self._held(shard)

    def gather(self, numbers: Iterable[int]) -> None:
        """Fetch what these images are read from: several shards at once, or single images where the cache is full."""
        rows: dict[int, list[int]] = {}
        for shard, row in map(self.locate, numbers):
            if not self._tars.is_mapped(self.entries[shard]):
                rows.setdefault(shard, []).append(row)
        if not rows:
            return
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="vitpipe-shards") as pool:
            list(pool.map(self.rows, rows))
            room = pool.map(lambda shard: self._tars.has_room(self._set(shard), self.entries[shard]), rows)
            past = [shard for shard, has_room in zip(rows, list(room), strict=True) if not has_room]
            list(pool.map(self._read_ahead, [(shard, row) for shard in past for row in dict.fromkeys(rows[shard])]))

    def _read_ahead(self, place: tuple[int, int]) -> None:
        shard, row = place
        self._tars.read_ahead(self._set(shard), self.entries[shard], self.rows(shard), row)

    def pixels(self, number: int) -> Pixels:
        """Decode one image, (height, width, 3) uint8. IntegrityError naming the shard when it does not decode."""
        shard, row = self.locate(number)
        rows = self.rows(shard)
        data = self._bytes(shard, row).tobytes()
        try:
            pixels = decode(data)
            if pixels.shape != (rows.height[row], rows.width[row], 3):
                raise BadImage(f"{pixels.shape} pixels, the index says {rows.height[row]} x {rows.width[row]}")
            return pixels
        except BadImage as error:
            intact = hashlib.sha256(data).hexdigest() == rows.sha256(row)
            found, do = f"{error}; its bytes are those ingested", "ingest again with this version"
            if not rows.was_decoded(row):
                do = "ingest again with `check: decode`, which sets such images aside"
            if not intact:
                found = f"{error}; its bytes are not those ingested"
                do = f"remove the cached {self._tars.cache.folder} and run again"
            asked = f"decode {rows.key(row)} of {self.entries[shard].path} in {self._set(shard).uri}"
            raise IntegrityError(asked, found, do) from error

    def shape(self, number: int) -> tuple[int, int]:
        """Height and width of one image, upright."""
        shard, row = self.locate(number)
        rows = self.rows(shard)
        return int(rows.height[row]), int(rows.width[row])

    def part(self, number: int, box: Box) -> Pixels:
        """Decode what `pixels` has in `box`; of most JPEGs, no more than that takes."""
        shard, row = self.locate(number)
        rows = self.rows(shard)
        if rows.ext(row) == "jpg":
            pixels = decode_part(self._bytes(shard, row), int(rows.height[row]), int(rows.width[row]), box)
            if pixels is not None:
                return pixels
        return box.of(self.pixels(number))

    def locate(self, number: int) -> tuple[int, int]:
        """Find shard and row of an image."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return shard, number - int(self._starts[shard])

    def key(self, number: int) -> str:
        """The WebDataset key of an image."""
        shard, row = self.locate(number)
        return self.rows(shard).key(row)

    def sample(self, number: int) -> dict[str, str | bytes]:
        """Give one image's members as webdataset does: its bytes, and its label, if it has one, not yet decoded."""
        shard, row = self.locate(number)
        rows = self.rows(shard)
        label = dict(label_members(rows.labels(row), self.manifests[self.owners[shard]].multi_label))
        image = self._bytes(shard, row).tobytes()
        return {"__key__": rows.key(row), "__url__": self._url(shard), rows.ext(row): image, **label}

    def _bytes(self, shard: int, row: int) -> npt.NDArray[np.uint8]:
        """The bytes of an image; where its tar is mapped, a view of it."""
        return self._tars.read(self._set(shard), self.entries[shard], self.rows(shard), row)

    def _map_rows(self, shard: int) -> IndexRows | None:
        entry, shards = self.entries[shard], self._set(shard)
        rows = self._tars.cache.rows(shards.file(entry.index).sha256, lambda: self._read_rows(shard))
        if rows is not None:  # of another set, it may be
            check_rows(rows, entry, self.manifests[self.owners[shard]], shards)
        return rows

    def _read_rows(self, shard: int) -> IndexRows:
        entry, shards = self.entries[shard], self._set(shard)
        index = load_index(shards, entry)
        check_index(index, entry, self.manifests[self.owners[shard]], shards)
        return IndexRows.of(index)

    def _find_url(self, shard: int) -> str:
        shards = self._set(shard)
        return f"{shards.uri}/{shards.file(self.entries[shard].path).at}"

    def _set(self, shard: int) -> ShardSet:
        return self.sets[self.owners[shard]]


class DecodedSplit:
    """A split that decodes each image once and keeps the pixels, for sets small enough. Safe for threads."""

    def __init__(self, split: Split) -> None:
        self._split = split
        tables = [*answers(split.rows, range(len(split.entries)), _FETCHES)]
        sizes = np.concatenate([rows.image_bytes for rows in tables])
        self._shapes = [pair for rows in tables for pair in zip(rows.height.tolist(), rows.width.tolist(), strict=True)]
        self._starts = np.concatenate(([0], sizes.cumsum())).tolist()
        self._store = np.empty(self._starts[-1], dtype=np.uint8)
        self._filled = np.zeros(len(sizes), dtype=bool)

    def gather(self, numbers: Iterable[int]) -> None:
        """As `Split.gather`, for images that are not decoded yet."""
        self._split.gather(number for number in numbers if not self._filled[number])

    def pixels(self, number: int) -> Pixels:
        """As `Split.pixels`; a view that must not be written to."""
        height, width = self._shapes[number]
        kept = self._store[self._starts[number] : self._starts[number + 1]].reshape(height, width, 3)
        if not self._filled[number]:  # two threads may fill the same place: with the same bytes
            kept[...] = self._split.pixels(number)
            self._filled[number] = True
        return kept

    def shape(self, number: int) -> tuple[int, int]:
        """As `Split.shape`."""
        return self._shapes[number]

    def part(self, number: int, box: Box) -> Pixels:
        """As `Split.part`; a view that must not be written to."""
        return box.of(self.pixels(number))


def open_pixels(split: Split) -> Split | DecodedSplit:
    """Open a split for reading pixels: kept decoded when all of them fit in `DECODED_BYTES`."""
    small = sum(entry.pixels for entry in split.entries) * 3 <= DECODED_BYTES
    return DecodedSplit(split) if small else split
