"""Small data sets in the layouts of their authors, written by the libraries whose formats they are."""

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, OfficialFile
from vitpipe.stages.ingest.sources import benchmark_files
from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles

RNG = np.random.default_rng(0)


def greys(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def write_images(root: Path, *names: str, kind: str | None = None) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(greys(1, 8, 8, 3)[0]).save(path, kind)


def write_text(root: Path, **texts: str) -> None:
    """Files by their place, `__` for a slash; a suffix `.txt` is added."""
    for name, text in texts.items():
        path = root / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_mnist(root: Path, train: int, test: int) -> None:
    for prefix, count in (("train", train), ("t10k", test)):
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", greys(count, 28, 28))
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))


def old_pickle(path: Path, content: dict) -> None:
    """As Python 2 and the numpy of its day wrote it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_cifar10(root: Path, each: int) -> None:
    folder = root / "cifar-10-batches-py"
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        old_pickle(folder / name, {"data": greys(each, 3072), "labels": [n % 10 for n in range(each)]})
    old_pickle(folder / "batches.meta", {"label_names": [f"name {number}" for number in range(10)]})


def write_cifar100(root: Path, train: int, test: int) -> None:
    folder = root / "cifar-100-python"
    for name, count in (("train", train), ("test", test)):
        labels = [n % 100 for n in range(count)]
        coarse = [n // 5 for n in labels]
        old_pickle(folder / name, {"data": greys(count, 3072), "fine_labels": labels, "coarse_labels": coarse})
    old_pickle(folder / "meta", {"fine_label_names": [f"fine {n}" for n in range(100)]})


def write_svhn(root: Path, train: int, test: int) -> dict[str, np.ndarray]:
    kept = {}
    for split, count in (("train", train), ("test", test)):
        kept[split] = greys(count, 32, 32, 3)
        labels = np.array([[n % 10 or 10] for n in range(count)])
        savemat(root / f"{split}_32x32.mat", {"X": kept[split].transpose(1, 2, 3, 0), "y": labels})
    return kept


def write_norb(path: Path, array: np.ndarray) -> None:
    """As the NORB page says: magic, axes, at least three lengths, all little-endian."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[str(array.dtype)]
    lengths = [*array.shape, *[1] * (3 - array.ndim)]
    header = struct.pack(f"<{2 + len(lengths)}i", magic, array.ndim, *lengths)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_smallnorb(root: Path, count: int) -> dict[str, np.ndarray]:
    """The pairs of images of each split; elevation n % 9, azimuth 2 x (n % 18)."""
    kept = {}
    for split, name in (("train", "5x46789x9x18x6x2x96x96-training"), ("test", "5x01235x9x18x6x2x96x96-testing")):
        kept[split] = greys(count, 2, 96, 96)
        info = np.array([[4, n % 9, 2 * (n % 18), 0] for n in range(count)], dtype=np.int32)
        write_norb(root / f"smallnorb-{name}-dat.mat.gz", kept[split])
        write_norb(root / f"smallnorb-{name}-info.mat.gz", info)
    return kept


def write_dsprites(root: Path, count: int) -> np.ndarray:
    """Orientation n % 40, x n % 32; with the pickled metadata of the true file, which nobody may open."""
    images = RNG.integers(0, 2, (count, 64, 64), dtype=np.uint8)
    numbers = np.arange(count)
    zero = np.zeros(count, dtype=np.int64)
    latents = np.stack([zero, numbers % 3, numbers % 6, numbers % 40, numbers % 32, numbers // 32 % 32], axis=1)
    metadata = np.array({"author": Path("code")}, dtype=object)
    np.savez_compressed(root / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", metadata=metadata, imgs=images,
                        latents_classes=latents)  # fmt: skip
    return images


def write_pcam(root: Path, count: int) -> dict[str, np.ndarray]:
    kept = {}
    for split in ("train", "valid", "test"):
        kept[split] = greys(count, 96, 96, 3)
        with h5py.File(root / f"camelyonpatch_level_2_split_{split}_x.h5", "w") as file:
            file.create_dataset("x", data=kept[split], chunks=(1, 96, 96, 3), compression="gzip")
        with h5py.File(root / f"camelyonpatch_level_2_split_{split}_y.h5", "w") as file:
            file.create_dataset("y", data=(np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1))
    return kept


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(greys(1, 16, 24, 3)[0]).save(file, "JPEG")
    return file.getvalue()


def write_clevr(root: Path, train: int, val: int) -> None:
    """The n-th scene has 3 + n % 8 objects, the closest at 7.75 + n / 2."""
    for split, count in (("train", train), ("val", val)):
        listed = []
        for n in range(count):
            name = f"CLEVR_{split}_{n:06d}.png"
            objects = [{"pixel_coords": [100, 50, 7.75 + n / 2 + extra]} for extra in range(3 + n % 8)]
            listed.append({"image_index": n, "image_filename": name, "objects": objects[::-1]})
            write_images(root, f"images/{split}/{name}")
        path = root / "scenes" / f"CLEVR_{split}_scenes.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"info": {"split": split}, "scenes": listed}, indent=None if n % 2 else 1))


def write_kitti(root: Path, objects: list[list[tuple[str, float]]], videos: list[str]) -> None:
    """An image's objects as (type, metres ahead); the video of each image."""
    for number, each in enumerate(objects):
        lines = [f"{kind} 0.00 0 1.57 1 2 3 4 1.5 1.6 3.7 1.0 1.7 {z:.2f} 1.6" for kind, z in each]
        write_text(root, **{f"training__label_2__{number:06d}": "\n".join(lines) + "\n"})
        write_images(root, f"training/image_2/{number:06d}.png")
    backwards = list(range(len(videos), 0, -1))
    mapping = [f"2011_09_26 {video} {n:010d}" for n, video in enumerate(reversed(videos))]
    write_text(root, mapping__train_rand=",".join(map(str, backwards)), mapping__train_mapping="\n".join(mapping))


def write_tar(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            data = jpeg()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def official(
    monkeypatch: pytest.MonkeyPatch, name: str, root: Path, images: dict[str, int], **changes: Any
) -> BenchmarkFiles:
    """The registry's entry with the digests of what stands in `root`, and the numbers that were written there."""
    known = REGISTRY[name]
    files = tuple(
        OfficialFile(file.path, tuple(f"md5:{_md5(root / file.path)}" for _ in file.digests[:1]))
        for file in known.files
    )
    made = replace(known, files=files, images=images, **changes)
    monkeypatch.setitem(benchmark_files.REGISTRY, name, made)
    return BenchmarkFiles(name, str(root))


def found_in(source: BenchmarkFiles) -> dict[str, tuple[str | None, tuple[int, ...]]]:
    """Split and labels of each image that the source lists."""
    return {item.name: (item.split, item.labels) for item in source.listing().items}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def read_named(source: BenchmarkFiles, name: str) -> bytes:
    return source.read(next(item for item in source.listing().items if item.name == name))


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def without_member(path: Path, member: str) -> None:
    """A zip file without one of its members."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != member}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
