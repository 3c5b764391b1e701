"""Readers of ImageNet as its authors lay it out, and of the reassessed labels of its validation images.

Training images lie in `train/n01440764/` or `train/n01440764.tar`; validation images in `val/`, flat with the
development kit's ground truth, or sorted into `val/n01440764/`.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks import entries as official
from vitpipe.stages.ingest.benchmarks.array_files import read_mat
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage, OfficialListing, Reader
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.reading import UnreadableImage

DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
NUM_VAL = 50_000


def _imagenet(benchmark: Benchmark, root: Path) -> OfficialListing:
    train = list(_train(benchmark, root))
    classes = tuple(sorted({wnid for wnid, _ in train}))
    number = {wnid: label for label, wnid in enumerate(classes)}
    entries = [
        OfficialImage(name, "train", (number[wnid],), key=name.rpartition("/")[2], size=size, place=place)
        for wnid, (name, size, place) in train
    ]
    for file, wnid in _val(benchmark, root):
        if wnid not in number:
            raise official.damaged(root / "val", f"{file} is of {wnid}, a class without training images")
        entries.append(OfficialImage(f"val/{file}", "test", (number[wnid],), key=file.rpartition("/")[2]))
    return OfficialListing(entries, classes)


_TrainImage = tuple[str, int, tuple[int, ...]]
"""Name, bytes where they are known, place in a tar."""


def _train(benchmark: Benchmark, root: Path) -> Iterator[tuple[str, _TrainImage]]:
    """Class and image, of folders and tars alike."""
    for path in sorted((root / "train").iterdir()) if (root / "train").is_dir() else ():
        if path.is_dir():
            yield from ((path.name, (f"train/{path.name}/{file.name}", 0, ())) for file in sorted(path.glob("*.JPEG")))
        elif path.suffix == ".tar":
            yield from ((path.stem, found) for found in _members(path))


def _members(path: Path) -> Iterator[_TrainImage]:
    """Images of one class's tar, by its headers alone."""
    with official.reading(path), tarfile.open(path) as archive:
        for member in archive:
            if member.isfile():
                yield f"train/{path.name}/{member.name}", member.size, (member.offset_data, member.size)


def _val(benchmark: Benchmark, root: Path) -> Iterator[tuple[str, str]]:
    """Place below `val` and class of every validation image."""
    folders = [path for path in sorted((root / "val").iterdir()) if path.is_dir()] if (root / "val").is_dir() else []
    if folders:
        yield from ((f"{path.name}/{file.name}", path.name) for path in folders for file in sorted(path.glob("*.JPEG")))
        return
    truth, meta = root / DEVKIT / "ILSVRC2012_validation_ground_truth.txt", root / DEVKIT / "meta.mat"
    lacking = [str(path.relative_to(root)) for path in (truth, meta) if not path.is_file()]
    if lacking:
        found = f"val has no class folders, and {', '.join(lacking)} is missing"
        raise UsageError(f"ingest {benchmark.title} from {root}", found, benchmark.obtain)
    wnids = devkit_classes(meta)
    for number, line in enumerate(official.list_lines(truth), 1):
        if not line.isdigit() or int(line) not in wnids:
            raise official.damaged(truth, f"line {number} says {line!r}, which is no class of meta.mat")
        yield f"ILSVRC2012_val_{number:08d}.JPEG", wnids[int(line)]


def devkit_classes(meta: Path) -> dict[int, str]:
    """WordNet id of each of the kit's own class numbers: those without children of `synsets`."""
    with official.reading(meta, "no synsets of the ILSVRC"):
        rows = read_mat(meta)["synsets"].ravel()
        return {
            int(np.asarray(row["ILSVRC2012_ID"]).item()): str(np.asarray(row["WNID"]).item())
            for row in rows
            if int(np.asarray(row["num_children"]).item()) == 0
        }


def _read(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    if not item.place:
        return official.read_file(benchmark, root, item)
    place, size = item.place
    try:
        with (root / "train" / item.name.split("/")[1]).open("rb") as file:
            file.seek(place)
            data = file.read(size)
    except OSError as error:
        raise UnreadableImage(f"its tar cannot be read: {error.strerror}") from error
    if len(data) < size:
        raise BadImage("its tar ends before it")
    return data


def _real(benchmark: Benchmark, root: Path) -> OfficialListing:
    """A list of right classes, in sorted order of WordNet ids, for each validation image; those without are left out:
    the published script counts them neither as right nor as wrong."""
    path = root / "real.json"
    with official.reading(path):
        rows = [[int(label) for label in labels] for labels in json.loads(path.read_text(encoding="utf-8"))]
    count = sum(benchmark.images.values())
    if len(rows) != count or any(label not in range(1000) for row in rows for label in row):
        raise official.damaged(path, f"it has {len(rows)} lists of classes, officially {count}")
    places = {path.name: path for path in (root / "val").rglob("*.JPEG")}
    entries = []
    for number, labels in enumerate(rows, 1):
        file = f"ILSVRC2012_val_{number:08d}.JPEG"
        name = str(places[file].relative_to(root)) if file in places else f"val/{file}"
        entries.append(OfficialImage(name, "test", tuple(sorted(set(labels))), key=file))
    return OfficialListing(entries, benchmark.class_names, multi_label=True)


IMAGENET = Reader(_imagenet, _read)
IMAGENET_REAL = Reader(_real)
