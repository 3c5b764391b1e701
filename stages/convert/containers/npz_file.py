"""Write a NumPy archive array by array, as `np.savez` does but without holding more than one.

Members are stored, not compressed, and bf16 stands there as Google's code writes it: raw pairs of bytes (`|V2`).
Knows nothing of models.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from numpy.lib import format as npy

from vitpipe.infra.storage.store import Digest
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.containers.hashed_file import HashedFile, pieces
from vitpipe.stages.convert.numbers import Array

_DESCR: Mapping[Dtype, str] = {"fp32": "<f4", "bf16": "|V2", "fp16": "<f2"}


class NpzFile:
    """An archive open for writing the named arrays, in the order of `shapes`, all of one type."""

    def __init__(self, path: Path, shapes: Sequence[tuple[str, tuple[int, ...]]], dtype: Dtype) -> None:
        self.path, self.dtype = path, dtype
        self._expected = list(reversed(shapes))
        self._file = HashedFile(path)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)  # without seek it never goes back

    def add(self, name: str, array: Array) -> None:
        """Append the next array, cast to the file's type.

        Errors: ValueError for any but the next name and its shape; StorageError for a full disk.
        """
        wanted = self._expected.pop()
        if wanted != (name, array.shape):
            raise ValueError(f"{self.path}: {wanted} is next, not {(name, array.shape)}")
        header = io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": _DESCR[self.dtype], "fortran_order": False, "shape": array.shape})
        member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: a second try writes the same bytes
        with self._zip.open(member, "w", force_zip64=True) as file:
            file.write(header.getvalue())
            for data in pieces(array, self.dtype):
                file.write(data)

    def digest(self) -> Digest:
        """End the file and give its digest. ValueError while arrays are missing."""
        if self._expected:
            raise ValueError(f"{self.path}: {len(self._expected)} arrays were not written")
        self._zip.close()
        return self._file.digest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._zip.close()
        finally:
            self._file.close()
