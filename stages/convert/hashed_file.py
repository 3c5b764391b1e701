"""A file that is hashed while it is written, and tensors as the bytes that go into it, a few at a time."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import torch
from torch import Tensor

from infra.errors import StorageError
from infra.storage.store import Digest

_PIECE_NUMBERS = 2**20
"""Numbers cast at a time: a transposed head of 21k classes needs no copy as large as itself."""


class HashedFile:
    """Opened for writing from the start, without seeking: what was written is what is hashed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("wb")
        self._hash, self._bytes = hashlib.sha256(), 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append. StorageError for a full disk."""
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageError(f"write {self.path}", str(error), "make room on the scratch disk") from error
        self._hash.update(data)
        self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: zipfile asks for it, and the end of the file does it."""

    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest(self._bytes, self._hash.hexdigest())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def need_room(folder: Path, needed: int) -> None:
    """StorageError before anything is written where `needed` bytes do not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        found = f"{free / 1e9:.2f} GB are free"
        raise StorageError(f"write {needed / 1e9:.2f} GB of weights below {folder}", found, "make room")


def pieces(tensor: Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    """The tensor's numbers in row order as bytes of `dtype`, cast piece by piece."""
    rows = tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach()
    numbers_a_row = max(1, rows[:1].numel())
    num_rows = max(1, _PIECE_NUMBERS // numbers_a_row)
    for start in range(0, len(rows), num_rows):
        part = rows[start : start + num_rows]
        if part.numel():
            yield part.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data
