"""What a file of named numbers gives before any is read: names, shapes, and one array at a time. No torch.

Arrays come as fp32 whatever the file's type, so bf16 and fp16 are widened exactly and fp64 is rounded.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Shape = tuple[int, ...]


class Read(Protocol):
    """Gives one array, or of an array stacked along its first axis one layer, read without the others."""

    def __call__(self, name: str, layer: int | None = None) -> Array: ...


@dataclass(frozen=True)
class Arrays:
    """Named arrays of one file or of several that belong together."""

    shapes: dict[str, Shape]
    """In the file's order."""
    read: Read
    """Errors: IntegrityError when the bytes are damaged; OSError and KeyError as they come."""
    all_bf16: bool = False
    """Whether every array of an npz is raw bf16: some libraries read only such."""


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
