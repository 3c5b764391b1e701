"""What numbers have to be before they are written: finite, and within the range of the type they are written in."""

from collections.abc import Callable

import torch
from torch import Tensor

from infra.errors import StageError

Read = Callable[[str], Tensor]
_PART_NUMBERS = 2**20


def checked(read: Read, dtype: torch.dtype) -> Read:
    """The same tensors, each looked at when it is read. StageError naming the first that cannot be written."""
    return lambda name: in_range(finite(read)(name), name, dtype)


def finite(read: Read) -> Read:
    """The same tensors. StageError when one holds numbers that are not finite."""

    def one(name: str) -> Tensor:
        tensor = read(name)
        # the sum of squares is finite only if all are: no mask, and a double of each number for a part at a time
        parts = tensor.reshape(-1).split(_PART_NUMBERS)  # type: ignore[no-untyped-call]
        if not all(torch.isfinite(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts):
            raise StageError(f"convert {name}", "it holds numbers that are not finite", "train again from before")
        return tensor

    return one


def in_range(tensor: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """The tensor. StageError for numbers beyond the type's range: of those in use only fp16's is narrow."""
    if dtype == torch.float16 and tensor.numel():
        low, high = (float(end) for end in tensor.aminmax())
        largest = torch.finfo(dtype).max
        if max(-low, high) > largest:
            found = f"it holds numbers up to {max(-low, high):g}, fp16 ends at {largest:g}"
            raise StageError(f"convert {name} to fp16", found, "take dtype bf16 or fp32")
    return tensor
