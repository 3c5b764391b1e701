"""The images of one split by number: mapped tars, read through their index.

Knows manifest, index and cache; not the order, nor what the pixels are for. No torch.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.ahead import Ranges, ShardsAhead
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import Pixels, decode, decode_part
from vitpipe.stages.images.header import BadImage, Header
from vitpipe.stages.images.index_checks import check_index, check_rows
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.manifest import Manifest, load_index
from vitpipe.stages.images.members import label_members
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import MAX_STREAMS, Order
from vitpipe.stages.images.pixel_source import Files
from vitpipe.stages.images.rows import IndexRows, Labels
from vitpipe.stages.images.tars import ShardReader
from vitpipe.stages.images.united import united

MAPPED_TABLES = 8192
"""Shards whose rows stay mapped: an order may read from many small shards at a time, the rows of which are files."""
HELD_TABLES = MAX_STREAMS + 64
"""Shards whose rows are held in memory where the disk does not take them."""
FETCHES = 16
"""Shards, or single images, that are fetched at a time for one batch."""


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
        self._ahead: ShardsAhead | None = None
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
        tables = answers(self.rows, range(len(self.entries)), FETCHES)
        return np.concatenate([self._array(rows.label_columns) for rows in tables])

    def labels_of(self, numbers_B: Ints) -> Ints | npt.NDArray[np.float32]:
        """Labels of some images (B,), reading no index but those of their shards."""
        if not self.labelled:
            return np.zeros(len(numbers_B), dtype=np.int64)
        found = self._array(np.zeros((len(numbers_B), 1), dtype=np.int32))
        for shard, b, rows in self._by_shard(numbers_B):
            found[b] = self._array(self.rows(shard).label_columns[rows])
        return found

    def _by_shard(self, numbers_B: Ints) -> Iterator[tuple[int, Ints, Ints]]:
        """Each shard of these images, the places of its images among them, and their rows."""
        shards_B = np.searchsorted(self._starts, numbers_B, side="right") - 1
        for shard in dict.fromkeys(shards_B.tolist()):
            b = np.flatnonzero(shards_B == shard)
            yield shard, b, numbers_B[b] - self._starts[shard]

    def _array(self, labels_BL: Labels) -> Ints | npt.NDArray[np.float32]:
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
        wanted = self._by_shard(np.fromiter(numbers, dtype=np.int64))
        rows = {shard: own.tolist() for shard, _, own in wanted if not self._tars.is_mapped(self.entries[shard])}
        if not rows:
            return
        with ThreadPoolExecutor(FETCHES, thread_name_prefix="vitpipe-shards") as pool:
            list(pool.map(self.rows, rows))
            mapped = pool.map(self._is_whole, rows)
            past = [shard for shard, whole in zip(rows, list(mapped), strict=True) if not whole]
            early = {shard for shard in past if self._is_awaited(shard)}
            reads = [(shard, row, shard in early) for shard in past for row in dict.fromkeys(rows[shard])]
            list(pool.map(self._read_ahead, reads))

    @contextmanager
    def looked_ahead(self, order: Order | Mixture, ranges: Ranges) -> Iterator[Callable[[int], None]]:
        """Fetch the shards of ranges of an order before they are needed; called with a position that was reached.

        Meanwhile `gather` waits for no shard that is on its way: it reads single images of it.
        """
        self._ahead = ahead = ShardsAhead(order, ranges, self._fetch)
        try:
            yield ahead.reached
        finally:
            self._ahead = None
            ahead.close()

    def _fetch(self, shard: int) -> bool:
        self.rows(shard)
        return self._tars.has_room(self._set(shard), self.entries[shard], waits=False)

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard's tar is mapped: fetched, unless there is no room for it or it is on its way."""
        if self._is_awaited(shard):
            return self._tars.is_here(self.entries[shard])
        return self._tars.has_room(self._set(shard), self.entries[shard])

    def _is_awaited(self, shard: int) -> bool:
        return self._ahead is not None and self._ahead.awaits(shard)

    def _read_ahead(self, place: tuple[int, int, bool]) -> None:
        shard, row, early = place
        self._tars.read_ahead(self._set(shard), self.entries[shard], self.rows(shard), row, early)

    def pixels(self, number: int) -> Pixels:
        """Decode one image, (height, width, 3) uint8. IntegrityError naming the shard when it does not decode."""
        shard, row = self.locate(number)
        return self._decoded(shard, row, self._bytes(shard, row).tobytes())

    def _decoded(self, shard: int, row: int, data: bytes) -> Pixels:
        rows = self.rows(shard)
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

    def shapes(self, numbers_B: Ints) -> Ints:
        """Height and width (B, 2) of images, upright."""
        found_B2 = np.empty((len(numbers_B), 2), dtype=np.int64)
        for shard, b, own in self._by_shard(numbers_B):
            rows = self.rows(shard)
            found_B2[b, 0], found_B2[b, 1] = rows.height[own], rows.width[own]
        return found_B2

    def files(self, numbers_B: Ints) -> Files:
        """Where the bytes of images that are JPEGs or PNGs lie; others are left to `part`."""
        found = Files(np.zeros(len(numbers_B), np.int64), np.zeros(len(numbers_B), np.int64), [])
        for shard, b, own in self._by_shard(numbers_B):
            rows = self.rows(shard)
            ours = rows.are(own, "jpg") | rows.are(own, "png")
            b, own = b[ours], own[ours]
            found.data_B[b], found.size_B[b] = self._tars.read_all(
                self._set(shard), self.entries[shard], rows, own, found.kept
            )
        return found

    def part(self, number: int, box: Box) -> Pixels:
        """Decode what `pixels` has in `box`; of most images, no more than that takes."""
        shard, row = self.locate(number)
        rows, data = self.rows(shard), self._bytes(shard, row)
        header = Header(rows.ext(row), int(rows.width[row]), int(rows.height[row]))
        pixels = decode_part(data, header, box)
        if pixels is not None:
            return pixels
        return box.of(self._decoded(shard, row, data.tobytes()))

    def locate(self, number: int) -> tuple[int, int]:
        """Find shard and row of an image."""
        shard = bisect_right(self._starts, number) - 1
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
