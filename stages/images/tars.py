"""The bytes of single images out of many shards: from mapped tars, or from the store where the cache has no room.

Knows indexes and the cache, not what the bytes are for. No torch.
"""

import hashlib
import mmap
import threading
import time

import numpy as np

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.storage import traffic
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.cache import ShardCache, expected
from vitpipe.stages.images.extension import Bytes, address
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.manifest import ShardEntry
from vitpipe.stages.images.rows import IndexRows

IDLE_S = 60.0
"""A map that was not read for so long is dropped, so that its tar may be removed from the cache."""
RETRY_S = 30.0
"""A shard for which there was no room is tried again after so long."""


class ShardReader:
    """The bytes of single images by shard and row. Safe for threads; one for each process."""

    def __init__(self, cache: ShardCache) -> None:
        self.cache = cache
        self._maps: dict[str, Bytes] = {}
        self._used: dict[str, float] = {}
        self._no_room: dict[str, float] = {}
        self._read_ahead: dict[tuple[str, int], Bytes] = {}
        self._warned = False
        self._lock = threading.Lock()

    def read(self, shards: ShardSet, entry: ShardEntry, rows: IndexRows, row: int) -> Bytes:
        """Read one image's bytes: a view of a mapped tar, which was verified whole; or fetched and verified alone.

        A view keeps its map alive. IntegrityError naming the shard; StorageError when the store does not give it.
        """
        ahead = self._read_ahead.pop((entry.sha256, row), None)
        if ahead is not None:
            return ahead
        tar = self._map(shards, entry)
        if tar is None:
            self.cache.watch.uncached()
            return self._ranged(shards, entry, rows, row)
        begin, size = rows.place(row)
        return tar[begin : begin + size]

    def read_all(
        self, shards: ShardSet, entry: ShardEntry, rows: IndexRows, own: Ints, kept: list[Bytes]
    ) -> tuple[Ints, Ints]:
        """Find addresses and sizes of some images' bytes, read as by `read`; whose memory that is joins `kept`."""
        tar = self._maps.get(entry.sha256)
        if tar is None or self._read_ahead:
            files = [self.read(shards, entry, rows, row) for row in own.tolist()]
            kept += files
            return np.array([address(file) for file in files]), np.array([file.size for file in files])
        self._used[entry.sha256] = time.monotonic()
        kept.append(tar)
        begins, sizes = rows.places(own)
        return address(tar) + begins, sizes

    def is_mapped(self, entry: ShardEntry) -> bool:
        """Whether the tar is mapped now; fetches nothing."""
        return entry.sha256 in self._maps

    def is_here(self, entry: ShardEntry) -> bool:
        """Map the tar if the cache has it; fetches nothing."""
        if not self.is_mapped(entry):
            tar = self.cache.held(entry)
            if tar is None:
                return False
            self._keep(entry, tar)
        return True

    def has_room(self, shards: ShardSet, entry: ShardEntry, waits: bool = True) -> bool:
        """Map the tar, fetching it if need be; returns whether the cache has room for it.

        Whether a reader `waits` for it, or it is fetched before anybody needs it.
        """
        return self._map(shards, entry, waits) is not None

    def read_ahead(self, shards: ShardSet, entry: ShardEntry, rows: IndexRows, row: int, early: bool = False) -> None:
        """Fetch one image's bytes for a later `read`: its tar has no room, or is `early` and on its way."""
        if not early:
            self.cache.watch.uncached()
        self._read_ahead[entry.sha256, row] = self._ranged(shards, entry, rows, row)

    def _map(self, shards: ShardSet, entry: ShardEntry, waits: bool = True) -> Bytes | None:
        now = time.monotonic()
        tar = self._maps.get(entry.sha256)
        if tar is not None:
            self._used[entry.sha256] = now
            return tar
        if now < self._no_room.get(entry.sha256, 0.0):
            return None
        self._drop_idle(now)
        mapped = self.cache.mapped(shards, entry)
        if waits:
            self.cache.watch.waited(f"{entry.path} of {shards.uri}", time.monotonic() - now)
        if mapped is None:
            self._no_room[entry.sha256] = time.monotonic() + RETRY_S
            self._warn_once(shards, entry)
            return None
        return self._keep(entry, mapped)

    def _keep(self, entry: ShardEntry, tar: mmap.mmap) -> Bytes:
        with self._lock:
            self._used[entry.sha256] = time.monotonic()
            return self._maps.setdefault(entry.sha256, np.frombuffer(tar, dtype=np.uint8))

    def _drop_idle(self, now: float) -> None:
        """Drop maps that have not been read lately; each lives on until the last view of it is gone."""
        with self._lock:
            for idle in [name for name, used in list(self._used.items()) if now - used > IDLE_S]:
                self._maps.pop(idle, None)
                self._used.pop(idle, None)

    def _warn_once(self, shards: ShardSet, entry: ShardEntry) -> None:
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            bound = f", of which {self.cache.max_bytes} may be used" if self.cache.max_bytes is not None else ""
            what = f"no room in {self.cache.folder}{bound} for the {entry.bytes} bytes of {entry.path} of {shards.uri}"
            self.cache.watch.no_room(what)

    def _ranged(self, shards: ShardSet, entry: ShardEntry, rows: IndexRows, row: int) -> Bytes:
        """Fetch one image, a second time if it arrived damaged: a bit that flips on the way does so once."""
        file, store = expected(shards, entry), shards.store()
        began = time.monotonic()
        for _ in range(2):
            data = store.read(file.at, *rows.place(row))
            if hashlib.sha256(data).hexdigest() == rows.sha256(row):
                self.cache.watch.waited(f"an image of {entry.path} of {shards.uri}", time.monotonic() - began)
                return np.frombuffer(data, dtype=np.uint8)
            traffic.count("retries")
        asked, found = (
            f"read image {rows.key(row)} of {entry.path} in {shards.uri}",
            "its bytes are not those the index names",
        )
        raise IntegrityError(asked, found, "the shard was damaged or replaced: restore it from a copy")
