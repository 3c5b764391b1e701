"""Reading parts of one file in a store, near ones with few requests. No torch; knows nothing of what is in the file."""

import io
from functools import lru_cache

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.stages.images.header import POINTERS
from vitpipe.stages.ingest.sources.patterns import SourceFile

LOCAL_BLOCK_BYTES = 16_384
REMOTE_BLOCK_BYTES = 4_194_304
"""Bytes taken at once: a request to a server costs as much time as some megabytes."""
BLOCKS_KEPT = 4


class Window:
    """Reads of any length at any place; the last few blocks are kept. For one thread.

    IntegrityError when the file is no longer the one that was listed: its labels are not those of other images.
    """

    def __init__(self, part: SourceFile, block_bytes: int | None = None) -> None:
        self.size, self._start = part.size, part.start
        self._store, self._path, self._version = store_of(part.folder), part.path, part.version
        self._block_bytes = block_bytes or (LOCAL_BLOCK_BYTES if part.is_local else REMOTE_BLOCK_BYTES)
        self._blocks: dict[int, bytes] = {}

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start`; fewer where the file ends."""
        end = min(start + length, self.size)
        if end - start > self._block_bytes:
            return self._store.read(self._path, self._start + start, end - start, self._version)
        first, last = start // self._block_bytes, max(start, end - 1) // self._block_bytes
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[start - first * self._block_bytes : end - first * self._block_bytes]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            while len(self._blocks) >= BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            start = number * self._block_bytes
            length = max(0, min(self._block_bytes, self.size - start))
            at = self._start + start
            self._blocks[number] = self._store.read(self._path, at, length, self._version) if length else b""
        return self._blocks[number]


def refuse_pointer(window: Window, uri: str) -> None:
    """UsageError for what stands in the place of a file that was not fetched."""
    start = window.read(0, max(map(len, POINTERS)))
    for begins, words in POINTERS.items():
        if start.startswith(begins):
            raise UsageError(f"read {uri}", f"it is {words}", "fetch the files first")


class WindowFile(io.RawIOBase):
    """A window as the seekable file that other libraries ask for."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window, self._at = window, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The byte that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte; also beyond the end, where nothing is read."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._window.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that are left by default."""
        length = self._window.size - self._at if size < 0 else size
        data = self._window.read(self._at, max(0, length))
        self._at += len(data)
        return data


@lru_cache(maxsize=64)
def store_of(folder: str) -> Store:
    """One client for all reads of a process."""
    return open_store(folder)
