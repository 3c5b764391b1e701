"""A folder as a library loads one by itself, of foreign files that may be called otherwise, stand elsewhere, or hold
more than the model. No torch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from vitpipe.stages.convert.foreign.located import INDEX
from vitpipe.stages.convert.foreign.weights import ForeignWeights
from vitpipe.stages.convert.formats.common import NPZ, SAFETENSORS, Named, format_of


def consumer_files(
    foreign: ForeignWeights, named: Named, paths: dict[str, Path], folder: Path
) -> tuple[tuple[Path, ...], Path | None]:
    """The files of tensors and `config.json`, if there is one, in `folder`: links, but for tensors whose names or
    neighbours the library does not know, which are written there by the names that it does."""
    folder.mkdir(parents=True, exist_ok=True)
    located = foreign.located
    for name in located.companions:
        _link(folder / name, paths[name])
    config = folder / "config.json"
    if named.is_unwrapped:
        path = folder / format_of(foreign.format).file
        arrays = named.theirs or named.arrays
        whole: dict[str, Any] = {name: np.ascontiguousarray(arrays.read(name)) for name in arrays.shapes}
        np.savez(path, **whole) if path.name == NPZ else safetensors.numpy.save_file(whole, path)
        return (path,), config if config.is_file() else None
    if located.index:
        _link(folder / INDEX, paths[located.index])
    single = SAFETENSORS if len(located.tensors) == 1 and located.tensors[0].endswith(".safetensors") else None
    tensors = tuple(folder / (single or name) for name in located.tensors)
    for name, path in zip(located.tensors, tensors, strict=True):
        _link(path, paths[name])
    return tensors, config if config.is_file() else None


def _link(path: Path, to: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to.absolute())
