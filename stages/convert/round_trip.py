"""Read a written file back with its format's own library and undo every step: is it the source, bit by bit?"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.formats.common import NPZ
from vitpipe.stages.convert.links import Link
from vitpipe.stages.convert.numbers import ReadArray, stored


def round_trip(path: Path, links: Iterable[Link], source: ReadArray, dtype: Dtype) -> dict[str, Any]:
    """`round_trip`: `bit-identical`, perhaps but for named tensors that the format holds in another form; and
    `differing`, the tensors that came back changed without such a reason."""
    kept, changed, differing = 0, [], []
    with _reader(path) as read:
        for link in links:
            if link.to_native is None or not link.exact:
                changed += list(link.native or link.foreign)
                continue
            back = link.to_native(*(read(each) for each in link.foreign))
            for native, array in zip(link.native, back, strict=True):
                kept += 1
                if not np.array_equal(array, stored(source(native), dtype)):
                    differing.append(native)
    but = f" but for {', '.join(changed)}, held in another form" if changed else ""
    return {"round_trip": f"bit-identical{but}", "tensors": kept} | ({"differing": differing} if differing else {})


@contextmanager
def _reader(path: Path) -> Iterator[Callable[[str], NDArray[Any]]]:
    """Numbers as they are stored: bf16, which NumPy has not, as its bits."""
    if path.name != NPZ:
        with safe_open(path, "pt") as file:  # for NumPy its library reads no bf16
            yield lambda name: _bits_of_bf16(file.get_tensor(name)).numpy()
        return
    with np.load(path, allow_pickle=False) as arrays:
        yield lambda name: _bits_of_bf16(_array_to_tensor(arrays[name])).numpy()


def _bits_of_bf16(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor


def _array_to_tensor(array: NDArray[Any]) -> Tensor:
    """An npz file's array as a tensor of its type; two raw bytes a number are bf16."""
    if array.dtype.kind == "V":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
