"""Numbers as a file holds them: fp32 as it is, or cast to bf16 or fp16 as torch casts, bit by bit. No torch.

NumPy has no bf16: its numbers are their bits here, as uint16.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.foreign.arrays import Array

ITEM_BYTES: Mapping[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
_NAN = 0x7FC0


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
