"""Write a safetensors file tensor by tensor: the header follows from the shapes, the digest from the writing.

Memory stays that of one tensor, which `safetensors.save_file` does not do. Knows nothing of models.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vitpipe.infra.storage.store import Digest
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.containers.hashed_file import HashedFile, pieces
from vitpipe.stages.convert.numbers import ITEM_BYTES, Array

_NAMES: Mapping[Dtype, str] = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


class SafetensorsFile:
    """A file open for writing the named tensors, in the order of `shapes`, all of one type."""

    def __init__(
        self, path: Path, shapes: Sequence[tuple[str, tuple[int, ...]]], dtype: Dtype, metadata: Mapping[str, str]
    ) -> None:
        self.path, self.dtype = path, dtype
        self._expected = list(reversed(shapes))
        self._file = HashedFile(path)
        self._file.write(_header(shapes, dtype, metadata))

    def add(self, name: str, array: Array) -> None:
        """Append the next tensor, cast to the file's type.

        Errors: ValueError for any but the next name and its shape; StorageError for a full disk.
        """
        wanted = self._expected.pop()
        if wanted != (name, array.shape):
            raise ValueError(f"{self.path}: {wanted} is next, not {(name, array.shape)}")
        for data in pieces(array, self.dtype):
            self._file.write(data)

    def digest(self) -> Digest:
        """Of the whole file. ValueError while tensors are missing."""
        if self._expected:
            raise ValueError(f"{self.path}: {len(self._expected)} tensors were not written")
        return self._file.digest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def file_bytes(shapes: Sequence[tuple[str, tuple[int, ...]]], dtype: Dtype) -> int:
    """Bytes of the tensors such a file will hold."""
    return sum(math.prod(shape) for _, shape in shapes) * ITEM_BYTES[dtype]


def _header(shapes: Sequence[tuple[str, tuple[int, ...]]], dtype: Dtype, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, shape in shapes:
        stop = start + math.prod(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text
