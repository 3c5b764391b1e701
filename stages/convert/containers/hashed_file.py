"""A file that is hashed while it is written, and arrays as the bytes that go into it, in order, a few at a time."""

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self

import numpy as np

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.store import Digest
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.numbers import Array, Shape, stored

_PIECE_NUMBERS = 2**17
"""Numbers cast at a time: a transposed head of 21k classes needs no copy as large as itself, and a piece is still in
the processor's cache when it is hashed."""
_COLUMNS = 64
"""Of a transposed piece that are copied at a time: both sides stay in the cache, three times as fast as all at once."""
_WAITING = 8
"""Pieces written and not yet hashed, at most."""


class HashedFile:
    """Opened for writing from the start, without seeking: what was written is what is hashed, by a thread beside."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("wb")
        self._hash, self._bytes = hashlib.sha256(), 0
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._waiting: deque[Future[None]] = deque()

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes that do not change afterwards. StorageError for a full disk."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._refused(error) from error
        self._waiting.append(self._hashing.submit(self._hash.update, data))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()
        self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: zipfile asks for it, and the end of the file does it."""

    def digest(self) -> Digest:
        """Size and SHA-256 of what was written so far."""
        while self._waiting:
            self._waiting.popleft().result()
        return Digest(self._bytes, self._hash.hexdigest())

    def close(self) -> None:
        """End the thread and write out what Python holds back. StorageError for a full disk."""
        self._hashing.shutdown()
        try:
            self._file.close()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(f"write {self.path}", str(error), "make room on the scratch disk")


class ArraysFile(ABC):
    """A file open for writing the named arrays, in the order of `shapes`, all of one type. A container says how."""

    def __init__(self, path: Path, shapes: Sequence[tuple[str, Shape]], dtype: Dtype) -> None:
        self.path, self.dtype = path, dtype
        self._expected = list(reversed(shapes))
        self._file = HashedFile(path)

    def add(self, name: str, array: Array) -> None:
        """Append the next array, cast to the file's type.

        Errors: ValueError for any but the next name and its shape; StorageError for a full disk.
        """
        wanted = self._expected.pop()
        if wanted != (name, array.shape):
            raise ValueError(f"{self.path}: {wanted} is next, not {(name, array.shape)}")
        self._append(name, array)

    def digest(self) -> Digest:
        """End the file and give its digest. ValueError while arrays are missing."""
        if self._expected:
            raise ValueError(f"{self.path}: {len(self._expected)} arrays were not written")
        return self._file.digest()

    def close(self) -> None:
        """Close the file, whole or not. StorageError for a full disk."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _append(self, name: str, array: Array) -> None:
        """Write `array`, whose turn it is, as the container holds it."""


def need_room(folder: Path, needed: int) -> None:
    """StorageError before anything is written where `needed` bytes do not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        found = f"{free / 1e9:.2f} GB are free"
        raise StorageError(f"write {needed / 1e9:.2f} GB of weights below {folder}", found, "make room")


def pieces(array: Array, dtype: Dtype) -> Iterator[memoryview]:
    """The array's numbers in row order as bytes of `dtype`, cast piece by piece."""
    rows = array.reshape(1) if array.ndim == 0 else array
    num_rows = max(1, _PIECE_NUMBERS // max(1, rows[:1].size))
    for start in range(0, len(rows), num_rows):
        part = rows[start : start + num_rows]
        if part.size:
            yield stored(_in_row_order(part), dtype).reshape(-1).view(np.uint8).data


def _in_row_order(part: Array) -> Array:
    """The same numbers without gaps."""
    if part.flags.c_contiguous:
        return part
    made = np.empty(part.shape, part.dtype)
    for start in range(0, part.shape[-1], _COLUMNS):
        made[..., start : start + _COLUMNS] = part[..., start : start + _COLUMNS]
    return made
