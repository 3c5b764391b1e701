"""Readers of whole data sets in one matrix: SmallNORB's binary files, dSprites' npz, PatchCamelyon's HDF5.

None is held as it is: SmallNORB loses its second camera, dSprites' black and white are packed to bits, PatchCamelyon
stays on disk.
"""

import gzip
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from vitpipe.infra.errors import UsageError
from vitpipe.infra.npz import HEADERS, loaded
from vitpipe.stages.images.header import BadImage
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

_NORB_BYTES, _NORB_INTS = 0x1E3D4C55, 0x1E3D4C54
_NORB_FILES = {"train": "5x46789x9x18x6x2x96x96-training", "test": "5x01235x9x18x6x2x96x96-testing"}
_ROWS_AT_ONCE = 4096


def read_norb(path: Path) -> npt.NDArray[Any]:
    """A matrix of the NORB format, gzipped: a magic number, the number of axes, at least three lengths, the data.

    Of a matrix of image pairs (N, 2, H, W) the first camera's (N, H, W).
    """
    with reading(path), gzip.open(path) as file:
        return _norb_matrix(file, path)


def _norb_matrix(file: gzip.GzipFile, path: Path) -> npt.NDArray[Any]:
    magic, axes = np.frombuffer(file.read(8), "<i4").tolist()
    if magic not in (_NORB_BYTES, _NORB_INTS) or not 0 < axes < 8:
        raise damaged(path, f"no NORB matrix of bytes or integers: it begins {magic:#x}, {axes} axes")
    shape = np.frombuffer(file.read(4 * max(3, axes)), "<i4")[:axes].tolist()
    kind = np.dtype(np.uint8 if magic == _NORB_BYTES else "<i4")
    row = int(np.prod(shape[1:], dtype=np.int64)) * kind.itemsize
    paired = axes == 4
    made = np.empty((shape[0], *shape[2:]) if paired else shape, kind)
    for first in range(0, shape[0], _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, shape[0] - first)
        rows = np.frombuffer(file.read(count * row), kind).reshape(count, *shape[1:])
        made[first : first + count] = rows[:, 0] if paired else rows
    if file.read(1):
        raise damaged(path, f"bytes are left over after {shape}")
    return made


@lru_cache(maxsize=2)
def _norb_images(root: Path, split: str) -> npt.NDArray[np.uint8]:
    return read_norb(_norb_path(root, split, "dat"))


def _norb_path(root: Path, split: str, part: str) -> Path:
    return root / f"smallnorb-{_NORB_FILES[split]}-{part}.mat.gz"


def _norb(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Columns of `info`: instance, elevation 0 to 8, azimuth 0, 2, ... 34, lighting."""
    column, step = {"elevation": (1, 1), "azimuth": (2, 2)}[benchmark.task]
    labels = dict[str, list[int]]()
    for split in _NORB_FILES:
        info = read_norb(_norb_path(root, split, "info"))
        if info.ndim != 2 or info.shape[1] != 4:
            raise damaged(_norb_path(root, split, "info"), f"its shape is {info.shape}, not (images, 4)")
        labels[split] = (info[:, column] // step).tolist()
    entries = [one for split in labels for one in numbered(split, labels[split])]
    return OfficialListing(entries, benchmark.class_names)


def _read_norb(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    split, _, number = item.name.partition("/")
    return png(_norb_images(root, split)[int(number)])


DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"


def _dsprites(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Columns of `latents_classes`: colour, shape, scale, orientation of 40, x and y of 32; VTAB joins them to 16."""
    column, joined = {"location": (4, 2.0), "orientation": (3, 2.5)}[benchmark.task]
    path = root / DSPRITES_FILE
    with reading(path), path.open("rb") as file, loaded(file) as held:
        labels = np.floor(held["latents_classes"][:, column] / joined).astype(int).tolist()
    return OfficialListing(list(numbered("train", labels)), benchmark.class_names)


@lru_cache(maxsize=1)
def _sprites(root: Path) -> npt.NDArray[np.uint8]:
    """Images (N, 64, 64) of 0 and 1 as bits (N, 512), unpacked from the archive a block at a time."""
    path = root / DSPRITES_FILE
    with reading(path), zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
        npy.read_magic(file)
        with HEADERS:
            shape, fortran, kind = npy.read_array_header_1_0(file)
        if shape[1:] != (64, 64) or fortran or kind != np.uint8:
            raise damaged(path, f"imgs is {kind} {shape}, not uint8 (N, 64, 64)")
        made = np.empty((shape[0], 512), np.uint8)
        for first in range(0, shape[0], _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, shape[0] - first)
            rows = np.frombuffer(file.read(count * 4096), np.uint8).reshape(count, 4096)
            made[first : first + count] = np.packbits(rows, axis=1)
        return made


def _read_dsprites(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    bits = _sprites(root)[int(item.name.partition("/")[2])]
    return png(np.unpackbits(bits).reshape(64, 64) * np.uint8(255))


_PCAM_CACHE_BYTES = 64 << 20
_PCAM_FILES = {"train": "train", "validation": "valid", "test": "test"}


@lru_cache(maxsize=6)
def _pcam(root: Path, split: str, part: str) -> Any:
    """The data set `x` (N, 96, 96, 3) or `y` (N, 1, 1, 1) of a split, still on disk."""
    try:
        import h5py  # an extra: `pip install 'vitpipe[benchmarks]'`
    except ImportError as error:
        do = "type `pip install h5py`, on the workers too"
        raise UsageError("read PatchCamelyon's HDF5 files", "the package h5py is not installed", do) from error
    path = root / f"camelyonpatch_level_2_split_{_PCAM_FILES[split]}_{part}.h5"
    with reading(path):
        return h5py.File(path, "r", rdcc_nbytes=_PCAM_CACHE_BYTES)[part]


def _patch_camelyon(benchmark: Benchmark, root: Path) -> OfficialListing:
    labels = {split: np.asarray(_pcam(root, split, "y")[...]).ravel().tolist() for split in _PCAM_FILES}
    for split, found in labels.items():
        if len(_pcam(root, split, "x")) != len(found):
            raise damaged(root, f"{split} has {len(_pcam(root, split, 'x'))} images and {len(found)} labels")
    entries = [one for split in labels for one in numbered(split, labels[split], f"{_PCAM_FILES[split]}_{{}}")]
    return OfficialListing(entries, benchmark.classes)


def _read_patch(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    split, _, number = item.name.partition("/")
    try:
        return png(np.asarray(_pcam(root, split, "x")[int(number)], dtype=np.uint8))
    except UNREADABLE as error:
        raise BadImage(f"its part of the HDF5 file cannot be read: {error}") from error


SMALLNORB = Reader(_norb, _read_norb, files=False)
DSPRITES = Reader(_dsprites, _read_dsprites, files=False)
PATCH_CAMELYON = Reader(_patch_camelyon, _read_patch, files=False)
