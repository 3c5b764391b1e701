"""Readers of official files that hold whole splits as arrays: idx (MNIST's), CIFAR's batches, SVHN's mat files.

No file is trusted to run code: CIFAR's pickles are opened with nothing but arrays, lists and strings allowed.
"""

import gzip
import math
import pickle
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.benchmarks.entries import (
    UNREADABLE,
    OfficialListing,
    Reader,
    damaged,
    numbered,
    png,
    reading,
)
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item

_ARRAY_MAKERS = {"_reconstruct", "ndarray", "dtype", "scalar", "encode"}


class ArraySplit(NamedTuple):
    """All images of a split, uint8 (N, H, W) or (N, H, W, 3), and their classes (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def _idx_split(benchmark: Benchmark, root: Path, split: str) -> ArraySplit:
    prefix = "t10k" if split == "test" else split
    images = read_idx(root / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(root / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64)
    return ArraySplit(images, labels)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped: two zeros, 8, the number of axes, each axis as 4 bytes, the data."""
    with reading(path), gzip.open(path) as file:
        data = file.read()
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
    start = 4 + 4 * axes
    if (zeros, kind) != (0, 8) or len(data) != start + math.prod(shape):
        raise damaged(path, f"no idx file of bytes: it begins {data[:4].hex()}, shape {shape}, {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _cifar_split(benchmark: Benchmark, root: Path, split: str) -> ArraySplit:
    paths = [file.path for file in benchmark.files if "meta" not in file.path]
    batches = [_cifar_batch(root / path) for path in paths if ("test" in path) == (split == "test")]
    return ArraySplit(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def _cifar_batch(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Rows of 1024 reds, greens and blues; CIFAR-100 has coarse classes beside the fine ones."""
    batch = read_inert_pickle(path)
    with reading(path, "no batch of CIFAR"):
        flat = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.array(batch["fine_labels" if "fine_labels" in batch else "labels"], dtype=np.int64)
        if labels.shape != (len(flat),):
            raise ValueError(f"{len(flat)} images and labels {labels.shape}")
    return flat.transpose(0, 2, 3, 1), labels


def _cifar_classes(benchmark: Benchmark, root: Path) -> tuple[str, ...]:
    meta = read_inert_pickle(root / next(file.path for file in benchmark.files if "meta" in file.path))
    return tuple(str(name) for name in meta.get("fine_label_names") or meta.get("label_names", ()))


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _ARRAY_MAKERS and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        found = f"it names {module}.{name}, which is no array"
        raise UsageError("open a pickled batch", found, "get the official file")


def read_inert_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of arrays, lists and strings. UsageError for one that names anything else, unopened."""
    with reading(path), path.open("rb") as file:
        content = _ArraysOnly(file, encoding="latin1").load()
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not a dictionary")
    return content


def _svhn_split(benchmark: Benchmark, root: Path, split: str) -> ArraySplit:
    path = root / f"{split}_32x32.mat"
    content = read_mat(path)
    with reading(path, "no cropped digits"):
        labels = np.asarray(content["y"], dtype=np.int64).ravel() % 10  # the digit 0 is stored as class 10
        return ArraySplit(np.asarray(content["X"], dtype=np.uint8).transpose(3, 0, 1, 2), labels)


def read_mat(path: Path) -> dict[str, Any]:
    """A MATLAB file of version 5. IntegrityError when it is damaged.

    Some damage crashes scipy itself: files with digests are therefore checked before they come here.
    """
    from scipy.io import loadmat  # takes a while: only where such a file is read
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(path)
    except (MatReadError, *UNREADABLE) as error:
        raise damaged(path, str(error)) from error
    return content


_SPLITS = {"idx": _idx_split, "cifar": _cifar_split, "svhn": _svhn_split}


@lru_cache(maxsize=2)
def _split(benchmark: Benchmark, root: Path, split: str) -> ArraySplit:
    return _SPLITS[benchmark.reader](benchmark, root, split)


def _listed(benchmark: Benchmark, root: Path) -> OfficialListing:
    labels = {split: _split(benchmark, root, split).labels.tolist() for split in benchmark.images}
    entries = [one for split in labels for one in numbered(split, labels[split])]
    is_cifar = benchmark.reader == "cifar"
    return OfficialListing(entries, _cifar_classes(benchmark, root) if is_cifar else benchmark.class_names)


def _read(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    split, _, number = item.name.partition("/")
    return png(_split(benchmark, root, split).images[int(number)])


ARRAYS = Reader(_listed, _read, files=False)
