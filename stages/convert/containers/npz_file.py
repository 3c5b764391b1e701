"""NumPy's archives, such as Google's ViT weights: written array by array, as `np.savez` does but without holding more
than one; read member by member, never a pickle, every byte against the archive's checksum. Knows no models. No torch.

Written members are stored, not compressed. bf16 has no name in NumPy and stands there as Google's code writes it, two
raw bytes (`|V2`), or as uint16.
"""

import errno
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vitpipe.infra.errors import UsageError
from vitpipe.infra.npz import HEADERS
from vitpipe.infra.storage.store import Digest
from vitpipe.stages.convert.config import WITHOUT_PICKLES, Dtype
from vitpipe.stages.convert.containers.hashed_file import ArraysFile, pieces
from vitpipe.stages.convert.numbers import FLOATS, Array, Arrays, Shape, count, damaged, is_raw_bf16, widened

_DESCR: Mapping[Dtype, str] = {"fp32": "<f4", "bf16": "|V2", "fp16": "<f2"}
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OverflowError)
_ENDING = ".npy"
_CHUNK_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30  # before the name and the extra field, whose lengths are its last four bytes


class NpzFile(ArraysFile):
    """An archive open for writing."""

    def __init__(self, path: Path, shapes: Sequence[tuple[str, Shape]], dtype: Dtype) -> None:
        super().__init__(path, shapes, dtype)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)  # without seek it never goes back

    def digest(self) -> Digest:
        """End the archive and give its digest. ValueError while arrays are missing."""
        self._zip.close()
        return super().digest()

    def close(self) -> None:
        """Close the archive, whole or not. StorageError for a full disk."""
        try:
            self._zip.close()
        finally:
            super().close()

    def _append(self, name: str, array: Array) -> None:
        header = io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": _DESCR[self.dtype], "fortran_order": False, "shape": array.shape})
        member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: a second try writes the same bytes
        with self._zip.open(member, "w", force_zip64=True) as file:
            file.write(header.getvalue())
            for data in pieces(array, self.dtype):
                file.write(data)


@dataclass(frozen=True)
class _Member:
    """One array as its headers say it."""

    info: zipfile.ZipInfo
    shape: Shape
    fortran: bool
    dtype: np.dtype[Any]
    header_bytes: int

    @property
    def is_mappable(self) -> bool:
        """Whether its numbers lie in the file as they are."""
        return self.info.compress_type == zipfile.ZIP_STORED and count(self.shape) > 0


def open_npz(path: Path) -> Arrays:
    """Names and shapes of all arrays; each is read when asked for.

    Errors: UsageError for arrays of objects (pickles) and of other things than floating point numbers; IntegrityError
    for a file that is cut off or damaged, then or when an array is read.
    """
    members: dict[str, _Member] = {}
    with _archive(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(_ENDING)
            if name.endswith(".pkl"):
                raise UsageError(f"read {path}", f"it is torch's zip with the pickle {name}", WITHOUT_PICKLES)
            if name in members or not info.filename.endswith(_ENDING):
                raise damaged(path, f"its member {info.filename!r} is no array, or stands there twice")
            with archive.open(info) as file:
                member = _member(file, path, info)
            members[name] = member
    counters = tuple(name for name, member in members.items() if _is_counter(member))
    members = {name: member for name, member in members.items() if name not in counters}
    shapes = {name: member.shape for name, member in members.items()}
    all_bf16 = all(is_raw_bf16(member.dtype) for member in members.values())
    return Arrays(shapes, _Reader(path, members), all_bf16, counters)


@dataclass(frozen=True)
class _Reader:
    """Maps what lies plainly in the file, once its checksum is verified, so that a layer of a stacked array costs the
    memory of a layer."""

    path: Path
    members: dict[str, _Member]
    verified: set[str] = field(default_factory=set)

    def __call__(self, name: str, layer: int | None = None) -> Array:
        member = self.members[name]
        numbers = self._mapped(name, member) if member.is_mappable else self._whole(name, member)
        return widened(np.array(numbers if layer is None else numbers[layer]))

    def _whole(self, name: str, member: _Member) -> NDArray[Any]:
        """The checksum is compared when a member is read to its end."""
        with _archive(self.path) as archive, archive.open(member.info) as file:
            data = file.read()[member.header_bytes :]
        return self._shaped(name, np.frombuffer(data, np.uint8), member)

    def _mapped(self, name: str, member: _Member) -> NDArray[Any]:
        info, lengths_at = member.info, member.info.header_offset + _LOCAL_HEADER_BYTES - 4
        with self.path.open("rb") as file:
            file.seek(lengths_at)
            start = lengths_at + 4 + sum(int.from_bytes(file.read(2), "little") for _ in range(2))
        try:
            data = np.memmap(self.path, np.uint8, "r", start, (info.file_size,))
        except (ValueError, OSError) as error:
            raise damaged(self.path, f"{name} lies beyond its end: {error}") from error
        if name not in self.verified:
            self._verify(name, data, info.CRC)
        return self._shaped(name, data[member.header_bytes :], member)

    def _verify(self, name: str, data: NDArray[np.uint8], wanted: int) -> None:
        found = 0
        for start in range(0, len(data), _CHUNK_BYTES):
            found = zlib.crc32(data[start : start + _CHUNK_BYTES].data, found)
        if found != wanted:
            raise damaged(self.path, f"{name} has the CRC {found:08x}, the archive says {wanted:08x}")
        self.verified.add(name)

    def _shaped(self, name: str, data: NDArray[np.uint8], member: _Member) -> NDArray[Any]:
        if data.nbytes != count(member.shape) * member.dtype.itemsize:
            raise damaged(self.path, f"{name} has {data.nbytes} bytes, its header says {member.shape}")
        return data.view(member.dtype).reshape(member.shape, order="F" if member.fortran else "C")


def _member(file: IO[bytes], path: Path, info: zipfile.ZipInfo) -> _Member:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # a third one differs only for records with names beyond ASCII
        raise damaged(path, f"{info.filename} is of the npy version {version}")
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with HEADERS:
        shape, fortran, dtype = reader(file)
    if dtype.hasobject:
        found = f"its member {info.filename} is an array of Python objects, a pickle that can run code"
        raise UsageError(f"read {path}", found, "save plain arrays where you trust the file")
    if dtype.kind != "f" and not is_raw_bf16(dtype) and not (dtype.kind in "iu" and count(shape) == 1):
        found = f"its member {info.filename} holds {dtype}, not floating point numbers"
        raise UsageError(f"read {path}", found, FLOATS)
    wanted = file.tell() + count(shape) * dtype.itemsize
    if info.file_size != wanted:
        raise damaged(path, f"{info.filename} has {info.file_size} bytes, {wanted} are needed for {shape} of {dtype}")
    return _Member(info, shape, fortran, dtype, file.tell())


def _is_counter(member: _Member) -> bool:
    """Whether it is one whole number, which counts steps."""
    return member.dtype.kind in "iu" and not is_raw_bf16(member.dtype)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The opened archive; whatever its damage makes of reading is one error."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGE as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # bz2's own, and a seek to before the beginning
            raise
        raise damaged(path, str(error)) from error
