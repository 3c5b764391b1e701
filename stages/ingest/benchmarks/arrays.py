"""Readers of official files that hold whole splits as arrays: idx (MNIST's), CIFAR's batches, SVHN's mat files.

No file is trusted to run code: CIFAR's pickles are opened with nothing but arrays, lists and strings allowed.
"""

import gzip
import math
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import IntegrityError, UsageError
from stages.ingest.benchmarks.registry import Benchmark

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_ARRAY_MAKERS = {"_reconstruct", "ndarray", "dtype", "scalar", "encode"}


@dataclass(frozen=True)
class ArraySplit:
    """All images of a split, uint8 (N, H, W) or (N, H, W, 3), and their classes (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArraySet:
    """A data set in memory."""

    splits: dict[str, ArraySplit]
    classes: tuple[str, ...]


def read_arrays(benchmark: Benchmark, root: Path) -> ArraySet:
    """Open all splits. IntegrityError naming the file that is not what its format says."""
    return {"idx": _idx_set, "cifar": _cifar_set, "svhn": _svhn_set}[benchmark.reader](benchmark, root)


def _idx_set(benchmark: Benchmark, root: Path) -> ArraySet:
    splits = {
        split: ArraySplit(
            read_idx(root / f"{prefix}-images-idx3-ubyte.gz"),
            read_idx(root / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }
    named = FASHION if benchmark.name == "fashion-mnist" else tuple(map(str, range(benchmark.num_classes)))
    return ArraySet(splits, named)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped: two zeros, 8, the number of axes, each axis as 4 bytes, the data."""
    try:
        with gzip.open(path) as file:
            data = file.read()
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
    except (OSError, EOFError, struct.error) as error:
        raise _damaged(path, str(error)) from error
    start = 4 + 4 * axes
    if (zeros, kind) != (0, 8) or len(data) != start + math.prod(shape):
        raise _damaged(path, f"no idx file of bytes: it begins {data[:4].hex()}, shape {shape}, {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _cifar_set(benchmark: Benchmark, root: Path) -> ArraySet:
    ten = benchmark.name == "cifar10"
    folder = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    names = {
        "train": [f"data_batch_{n}" for n in range(1, 6)] if ten else ["train"],
        "test": ["test_batch" if ten else "test"],
    }
    label_key, names_key = ("labels", "label_names") if ten else ("fine_labels", "fine_label_names")
    splits = {}
    for split, files in names.items():
        batches = [read_inert_pickle(folder / file) for file in files]
        flat = np.concatenate([np.asarray(batch["data"], dtype=np.uint8) for batch in batches])
        labels = [label for batch in batches for label in batch[label_key]]
        splits[split] = ArraySplit(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, dtype=np.int64))
    meta = read_inert_pickle(folder / ("batches.meta" if ten else "meta"))
    return ArraySet(splits, tuple(str(name) for name in meta[names_key]))


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _ARRAY_MAKERS and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise UsageError(
            "open a pickled batch", f"it names {module}.{name}, which is no array", "get the official file"
        )


def read_inert_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of arrays, lists and strings. UsageError for one that names anything else, unopened."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}, not a dictionary")
    return content


def _svhn_set(benchmark: Benchmark, root: Path) -> ArraySet:
    splits = {}
    for split in benchmark.images:
        content = read_mat(root / f"{split}_32x32.mat")
        labels = np.asarray(content["y"], dtype=np.int64).ravel() % 10  # the digit 0 is stored as class 10
        splits[split] = ArraySplit(np.asarray(content["X"], dtype=np.uint8).transpose(3, 0, 1, 2), labels)
    return ArraySet(splits, tuple(map(str, range(10))))


def read_mat(path: Path) -> dict[str, Any]:
    """A MATLAB file of version 5. IntegrityError when it is damaged."""
    from scipy.io import loadmat  # takes a while: only where such a file is read

    try:
        content: dict[str, Any] = loadmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        raise _damaged(path, str(error)) from error
    return content


def _damaged(path: Path, found: str) -> IntegrityError:
    return IntegrityError(f"read {path}", found, "get the official file again")
