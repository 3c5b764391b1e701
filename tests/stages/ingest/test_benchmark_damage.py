"""Damage anywhere in any official file is told in words: never a crash, whatever the format's own library does."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from official_files import (
    write_cifar10,
    write_clevr,
    write_dsprites,
    write_images,
    write_kitti,
    write_mnist,
    write_pcam,
    write_smallnorb,
    write_svhn,
    write_text,
)
from scipy.io import savemat
from tf_records import write_dmlab

from vitpipe.infra.errors import VitpipeError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks import array_files, matrices
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, OfficialFile
from vitpipe.stages.ingest.sources import benchmark_files
from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles

SEEDS = 12


def write_flowers(root: Path) -> None:
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 3, 2, 1, 2, 2]])})
    savemat(root / "setid.mat", {"trnid": [[4, 5]], "valid": [[1, 6]], "tstid": [[2, 3]]}, do_compression=True)
    write_images(root, *(f"jpg/image_{number:05d}.jpg" for number in range(1, 7)))


def write_pets(root: Path) -> None:
    write_text(root, annotations__trainval="Bengal_7 1 1 1\ngreat_dane_1 2 2 1\n", annotations__test="Bengal_9 1 1 1\n")
    write_images(root, "images/great_dane_1.jpg", "images/Bengal_7.jpg", "images/Bengal_9.jpg")


def write_birds(root: Path) -> None:
    write_text(root, images="1 001.A/a.jpg\n2 002.S/b.jpg\n3 002.S/c.jpg\n", image_class_labels="1 1\n2 2\n3 2\n",
               train_test_split="1 1\n2 1\n3 0\n", classes="1 001.A\n2 002.S\n")  # fmt: skip
    write_images(root, "images/001.A/a.jpg", "images/002.S/b.jpg", "images/002.S/c.jpg")


def write_retinopathy(root: Path) -> None:
    (root / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,4\n")
    (root / "retinopathy_solution.csv").write_text("image,level,Usage\n1_left,2,Public\n1_right,3,Private\n")
    write_images(root, "train/10_left.jpeg", "train/10_right.jpeg", "test/1_left.jpeg", "test/1_right.jpeg")


def write_sun(root: Path) -> None:
    write_text(
        root, sun397_tfds_tr="/a/b/x.jpg\n/c/y.jpg\n", sun397_tfds_va="/a/b/z.jpg\n", sun397_tfds_te="/c/w.jpg\n"
    )
    write_images(root, *(f"SUN397/{name}.jpg" for name in ("a/b/x", "c/y", "a/b/z", "c/w")))


@dataclass(frozen=True)
class Layout:
    """A small data set, and what an undamaged one lists."""

    name: str
    write: Callable[[Path], object]
    images: Mapping[str, int]
    classes: int


LAYOUTS = [
    Layout("mnist", lambda root: write_mnist(root, 20, 10), {"train": 20, "test": 10}, 10),
    Layout("cifar10", lambda root: write_cifar10(root, 4), {"train": 20, "test": 4}, 10),
    Layout("svhn", lambda root: write_svhn(root, 12, 11), {"train": 12, "test": 11}, 10),
    Layout("oxford_flowers102", write_flowers, {"train": 2, "validation": 2, "test": 2}, 3),
    Layout("oxford_iiit_pet", write_pets, {"train": 2, "test": 1}, 2),
    Layout("caltech_birds2011", write_birds, {"train": 2, "test": 1}, 2),
    Layout("sun397", write_sun, {"train": 2, "validation": 1, "test": 1}, 2),
    Layout("diabetic_retinopathy", write_retinopathy, {"train": 2, "validation": 1, "test": 1}, 5),
    Layout("patch_camelyon", lambda root: write_pcam(root, 4), dict.fromkeys(("train", "validation", "test"), 4), 2),
    Layout("dmlab", lambda root: write_dmlab(root, 4), {"train": 8, "validation": 4, "test": 4}, 6),
    Layout("vtab-smallnorb-azimuth", lambda root: write_smallnorb(root, 6), {"train": 6, "test": 6}, 18),
    Layout("vtab-dsprites-location", lambda root: write_dsprites(root, 40), {"train": 40}, 16),
    Layout("vtab-clevr-count", lambda root: write_clevr(root, 6, 5), {"train": 6, "validation": 5}, 8),
    Layout("vtab-kitti-distance", lambda root: write_kitti(root, [[("Car", 9.0)], [("Van", 30.0)]] * 10,
           [f"v{n // 2}" for n in range(20)]), {"train": 16, "validation": 2, "test": 2}, 4),
]  # fmt: skip


def everything(source: BenchmarkFiles) -> int:
    """List and read all; how many images could not be had. Whatever was opened before is opened anew."""
    for kept in (array_files._split, matrices._norb_images, matrices._sprites, matrices._pcam):
        kept.cache_clear()
    items = source.listing().items
    return sum(isinstance(data, BadImage) for data in source.reads(items))


def md5_of(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def broken(data: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.integers(4)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        return b""
    if kind == 2:
        return bytes(rng.integers(0, 256, max(len(data) // 2, 40), dtype=np.uint8))
    flipped = bytearray(data)
    for place in rng.integers(0, len(data), 1 + len(data) // 50):
        flipped[place] ^= int(rng.integers(1, 256))
    return bytes(flipped)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_damage_is_told_in_words(tmp_path, monkeypatch, layout):
    known = REGISTRY[layout.name]
    layout.write(tmp_path)
    in_mat = [file for file in known.files if file.path.endswith(".mat")]  # scipy can crash: their digests guard it
    files = tuple(
        OfficialFile(file.path, (md5_of(tmp_path / file.path),) if file in in_mat else ()) for file in known.files
    )
    made = replace(known, files=files, images=layout.images, num_classes=layout.classes, parts={})
    monkeypatch.setitem(benchmark_files.REGISTRY, layout.name, made)
    source = BenchmarkFiles(layout.name, str(tmp_path))
    assert everything(source) == 0, "undamaged it is read whole"
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    told = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        path = paths[rng.integers(len(paths))]
        whole = path.read_bytes()
        path.write_bytes(broken(whole, rng))
        try:
            told += everything(source) > 0
        except (VitpipeError, BadImage):
            told += 1
        path.write_bytes(whole)
    assert told > 0, "of a dozen damages some cannot go unseen"
    assert everything(source) == 0, "and none stays"
