"""What numbers have to be before they are written: finite, and within the range of the type they are written in."""

from collections.abc import Callable

import numpy as np

from vitpipe.infra.errors import StageError
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.foreign.arrays import Array

Read = Callable[[str], Array]
_PART_NUMBERS = 2**20


def checked(read: Read, dtype: Dtype) -> Read:
    """The same arrays, each looked at when it is read. StageError naming the first that cannot be written."""
    return lambda name: in_range(finite(read)(name), name, dtype)


def finite(read: Read) -> Read:
    """The same arrays. StageError when one holds numbers that are not finite."""

    def one(name: str) -> Array:
        array = read(name)
        flat = array.reshape(-1)
        parts = (flat[start : start + _PART_NUMBERS] for start in range(0, len(flat), _PART_NUMBERS))
        if not all(_is_finite(part) for part in parts):
            raise StageError(f"convert {name}", "it holds numbers that are not finite", "train again from before")
        return array

    return one


def in_range(array: Array, name: str, dtype: Dtype) -> Array:
    """The array. StageError for numbers beyond the type's range: of those in use only fp16's is narrow."""
    if dtype == "fp16" and array.size:
        largest, found = float(np.finfo(np.float16).max), max(-float(array.min()), float(array.max()))
        if found > largest:
            told = f"it holds numbers up to {found:g}, fp16 ends at {largest:g}"
            raise StageError(f"convert {name} to fp16", told, "take dtype bf16 or fp32")
    return array


def _is_finite(part: Array) -> bool:
    """A sum is finite only if all are, and takes no mask; that of finite numbers may still overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(part.sum()) or np.isfinite(part).all())
