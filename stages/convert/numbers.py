"""Numbers as files hold them and as conversions see them: names, shapes, one array at a time; casts in both directions.

Arrays come as fp32 whatever the file's type, so bf16 and fp16 are widened exactly and fp64 is rounded. They go as they
are, or cast to bf16 or fp16 as torch casts, bit by bit. NumPy has no bf16: its numbers are their bits here, as uint16.
No torch; opens no files.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitpipe.infra.errors import IntegrityError, StageError
from vitpipe.stages.convert.config import Dtype

Array = NDArray[np.float32]
Shape = tuple[int, ...]
ReadArray = Callable[[str], Array]

FLOATS = "dequantise it with what made it, and save floating point numbers (fp32, bf16, fp16)"
"""What to do with a file of whole numbers."""
ITEM_BYTES: Mapping[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
_NAN = 0x7FC0
_PART_NUMBERS = 2**20


class ReadLayer(Protocol):
    """Gives one array, or of an array stacked along its first axis one layer, read without the others."""

    def __call__(self, name: str, layer: int | None = None) -> Array: ...


@dataclass(frozen=True)
class Arrays:
    """Named arrays of one file or of several that belong together."""

    shapes: dict[str, Shape]
    """In the file's order."""
    read: ReadLayer
    """Errors: IntegrityError when the bytes are damaged; OSError and KeyError as they come."""
    all_bf16: bool = False
    """Whether every array of an npz is raw bf16: some libraries read only such."""
    counters: tuple[str, ...] = ()
    """Names of single whole numbers beside them, which count steps or averages: no parameters, left aside."""


def count(shape: Shape) -> int:
    """Numbers in an array of this shape."""
    return math.prod(shape)


def is_raw_bf16(dtype: np.dtype[Any]) -> bool:
    """Two bytes without a meaning, or an unsigned number of two: how NumPy keeps what it has no name for."""
    return dtype.kind in "Vu" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None


def widened(array: NDArray[Any]) -> Array:
    """Floating point numbers of any size and byte order as fp32; two raw bytes each are bf16."""
    if is_raw_bf16(array.dtype):
        return bf16_to_fp32(array.view("<u2"))
    return np.ascontiguousarray(array, dtype=np.float32)


def bf16_to_fp32(bits: NDArray[np.uint16]) -> Array:
    """Bit patterns of bfloat16 numbers as fp32: the same bits, and sixteen zeros."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def stored(array: Array, dtype: Dtype) -> NDArray[Any]:
    """The numbers in a file's type, rounded to the nearest and to even between two. What is no number stays none."""
    if dtype == "fp32":
        return array
    if dtype == "fp16":
        with np.errstate(over="ignore"):  # beyond its range is infinite; who may not write that has asked before
            return array.astype(np.float16)
    bits = array.view(np.uint32)
    odd = (bits >> 16) & 1
    rounded = ((bits + (odd + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), np.uint16(_NAN), rounded)


def damaged(path: Path, why: str) -> IntegrityError:
    """Make the error for a file that is not what its format or its maker says."""
    return IntegrityError(f"read {path}", f"it is damaged: {why}", "fetch it again")


def checked(read: ReadArray, dtype: Dtype) -> ReadArray:
    """The same arrays, each looked at when it is read. StageError naming the first that cannot be written."""
    return lambda name: in_range(finite(read)(name), name, dtype)


def finite(read: ReadArray) -> ReadArray:
    """The same arrays. StageError when one holds numbers that are not finite."""

    def one(name: str) -> Array:
        array = read(name)
        if not _all_finite(array):
            raise StageError(f"convert {name}", "it holds numbers that are not finite", "train again from before")
        return array

    return one


def checked_source(read: ReadArray, asked: str) -> ReadArray:
    """The same arrays of somebody else's file. StageError when one holds numbers that are not finite."""

    def one(name: str) -> Array:
        array = read(name)
        if not _all_finite(array):
            wrong = int(array.size - np.isfinite(array).sum())
            found = f"{wrong} of the {array.size} numbers in it that become {name} are not finite"
            raise StageError(asked, found, "compare its SHA-256 with its publisher's, or name another file")
        return array

    return one


def _all_finite(array: Array) -> bool:
    flat = array.reshape(-1)
    parts = (flat[start : start + _PART_NUMBERS] for start in range(0, len(flat), _PART_NUMBERS))
    return all(_is_finite(part) for part in parts)


def in_range(array: Array, name: str, dtype: Dtype) -> Array:
    """The array. StageError for numbers beyond the type's range: of those in use only fp16's is narrow."""
    if dtype == "fp16" and array.size:
        limit, largest = float(np.finfo(np.float16).max), max(-float(array.min()), float(array.max()))
        if largest > limit:
            found = f"it holds numbers up to {largest:g}, fp16 ends at {limit:g}"
            raise StageError(f"convert {name} to fp16", found, "take dtype bf16 or fp32")
    return array


def _is_finite(part: Array) -> bool:
    """A sum is finite only if all are, and takes no mask; that of finite numbers may still overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(part.sum()) or np.isfinite(part).all())
