"""Read a written file back with its format's own library and undo every step: is it the source, bit by bit?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from vitpipe.stages.convert.config import Dtype, Format
from vitpipe.stages.convert.described import FILES, NPZ
from vitpipe.stages.convert.layouts import links_of
from vitpipe.stages.convert.numbers import stored
from vitpipe.stages.convert.tensors import Tensors


def round_trip(name: Format, source: Tensors, folder: Path, dtype: Dtype) -> dict[str, Any]:
    """`round_trip`: `bit-identical`, perhaps but for named tensors that the format holds in another form; and
    `differing`, the tensors that came back changed without such a reason."""
    kept, changed, differing = 0, [], []
    with _reader(folder / FILES[name]) as read:
        for link in links_of(name, source.settings):
            if link.to_native is None or not link.exact:
                changed += list(link.native or link.foreign)
                continue
            back = link.to_native(*(read(each) for each in link.foreign))
            for native, array in zip(link.native, back, strict=True):
                kept += 1
                if not np.array_equal(array, stored(source.read(native), dtype)):
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
        yield lambda name: _bits_of_bf16(array_to_tensor(arrays[name])).numpy()


def _bits_of_bf16(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor


def array_to_tensor(array: "np.ndarray[Any, Any]") -> Tensor:
    """An npz file's array as a tensor of its type; two raw bytes a number are bf16."""
    if array.dtype.kind == "V":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
