"""Readers of official lists beside a tree of image files: Oxford Pets, Flowers-102, DTD (its first division)."""

from pathlib import Path

import numpy as np

from infra.errors import IntegrityError
from stages.ingest.benchmarks.arrays import read_mat
from stages.ingest.benchmarks.registry import Benchmark

Listed = list[tuple[str, str, int]]
"""Path below the root, split, class."""


def read_tree(benchmark: Benchmark, root: Path) -> tuple[Listed, tuple[str, ...]]:
    """What the official lists say, and the classes' names. IntegrityError naming a list that is not one."""
    return {"pets": _pets, "flowers": _flowers, "dtd": _dtd}[benchmark.reader](root)


def _pets(root: Path) -> tuple[Listed, tuple[str, ...]]:
    """Lines `Abyssinian_100 1 1 1`: the image, the class from 1, cat or dog, the breed within it."""
    listed, names = [], {}
    for split, file in (("train", "trainval"), ("test", "test")):
        path = root / "annotations" / f"{file}.txt"
        for line in _lines(path):
            parts = line.split()
            if len(parts) != 4 or not parts[1].isdigit():
                raise IntegrityError(f"read {path}", f"a line says {line!r}", "get the official file again")
            label = int(parts[1]) - 1
            names[label] = parts[0].rsplit("_", 1)[0].replace("_", " ")
            listed.append((f"images/{parts[0]}.jpg", split, label))
    return listed, tuple(names.get(label, str(label)) for label in range(max(names, default=-1) + 1))


def _flowers(root: Path) -> tuple[Listed, tuple[str, ...]]:
    """Image numbers of each split in setid.mat, classes from 1 in imagelabels.mat; the authors name no class."""
    labels = np.asarray(read_mat(root / "imagelabels.mat")["labels"], dtype=np.int64).ravel() - 1
    splits = read_mat(root / "setid.mat")
    listed = [
        (f"jpg/image_{number:05d}.jpg", split, int(labels[number - 1]))
        for split, key in (("train", "trnid"), ("validation", "valid"), ("test", "tstid"))
        for number in np.asarray(splits[key], dtype=np.int64).ravel().tolist()
    ]
    return listed, tuple(str(number) for number in range(1, int(labels.max()) + 2))


def _dtd(root: Path) -> tuple[Listed, tuple[str, ...]]:
    """Lines `banded/banded_0002.jpg`."""
    found = [
        (line, split)
        for split, file in (("train", "train1"), ("validation", "val1"), ("test", "test1"))
        for line in _lines(root / "labels" / f"{file}.txt")
    ]
    classes = tuple(sorted({line.split("/")[0] for line, _ in found}))
    number = {name: label for label, name in enumerate(classes)}
    return [(f"images/{line}", split, number[line.split("/")[0]]) for line, split in found], classes


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
