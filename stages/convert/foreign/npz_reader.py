"""Read a NumPy archive member by member: never a pickle, every byte against the archive's checksum. No torch.

Google's ViT weights are such files. bf16 has no name in NumPy and stands there as two raw bytes (`|V2`) or as uint16.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from infra.errors import IntegrityError, UsageError
from stages.convert.foreign.arrays import Array, Arrays, Shape, count, is_raw_bf16, widened

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OverflowError)
_ENDING = ".npy"


@dataclass(frozen=True)
class _Header:
    shape: Shape
    fortran: bool
    dtype: np.dtype[Any]


def open_npz(path: Path) -> Arrays:
    """Names and shapes of all arrays; each is read when asked for.

    Errors: UsageError for arrays of objects (pickles) and of other things than floating point numbers; IntegrityError
    for a file that is cut off or damaged, then or when an array is read.
    """
    headers: dict[str, _Header] = {}
    with _archive(path) as archive:
        members = archive.infolist()
        for member in members:
            name = member.filename.removesuffix(_ENDING)
            if name in headers or not member.filename.endswith(_ENDING):
                raise _damaged(path, f"its member {member.filename!r} is no array, or stands there twice")
            with archive.open(member) as file:
                headers[name] = _header(file, path, member)
    shapes = {name: header.shape for name, header in headers.items()}
    bf16 = all(is_raw_bf16(header.dtype) for header in headers.values())
    return Arrays(shapes, lambda name: _read(path, name), bf16)


def _read(path: Path, name: str) -> Array:
    """One array, its checksum verified: that happens when a member is read to its end."""
    with _archive(path) as archive, archive.open(name + _ENDING) as file:
        header = _header(file, path, archive.getinfo(name + _ENDING))
        data = bytearray(file.read())
        if len(data) != count(header.shape) * header.dtype.itemsize or file.read(1):
            raise _damaged(path, f"{name} has {len(data)} bytes, its header says {header.shape}")
    flat = np.frombuffer(data, header.dtype)
    return widened(flat.reshape(header.shape, order="F" if header.fortran else "C"))


def _header(file: IO[bytes], path: Path, member: zipfile.ZipInfo) -> _Header:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # a third one differs only for records with names beyond ASCII
        raise _damaged(path, f"{member.filename} is of the npy version {version}")
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header = _Header(*reader(file))
    if header.dtype.hasobject:
        found = f"its member {member.filename} is an array of Python objects, a pickle that can run code"
        raise UsageError(f"read {path}", found, "save plain arrays where you trust the file")
    if header.dtype.kind != "f" and not is_raw_bf16(header.dtype):
        raise UsageError(
            f"read {path}", f"its member {member.filename} holds {header.dtype}, not floating point numbers"
        )
    wanted = count(header.shape) * header.dtype.itemsize
    if not 0 <= member.file_size - wanted <= 2**16 + 16:  # the header itself
        raise _damaged(path, f"{member.filename} has {member.file_size} bytes for {header.shape} of {header.dtype}")
    return header


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The opened archive; whatever its damage makes of reading is one error."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGE as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"read {path}", f"it is damaged: {why}", "fetch it again")
