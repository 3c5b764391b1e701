"""Readers of ImageNet as its authors lay it out, and of the reassessed labels of its validation images.

Training images lie in `train/n01440764/`, in `train/n01440764.tar`, or in the one tar of these that is downloaded;
validation images in `val/`, flat with the development kit's ground truth or sorted into `val/n01440764/`, or in their
tar.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks import entries as official
from vitpipe.stages.ingest.benchmarks.array_files import read_mat
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage, OfficialListing, Reader
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item, some
from vitpipe.stages.ingest.reading import UnreadableImage

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
"""As they are downloaded; looked at where there is no folder `train`, or `val`."""
DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
NUM_VAL = 50_000


def _imagenet(benchmark: Benchmark, root: Path) -> OfficialListing:
    train = list(_train(benchmark, root))
    classes = tuple(sorted({wnid for wnid, _ in train}))
    if strange := sorted(set(classes) - set(benchmark.classes)):
        raise official.damaged(root / "train", f"{len(strange)} of its classes are none of ImageNet's: {some(strange)}")
    number = {wnid: label for label, wnid in enumerate(classes)}
    entries = [
        OfficialImage(name, "train", (number[wnid],), key=name.rpartition("/")[2], size=size, place=place)
        for wnid, (name, size, place) in train
    ]
    packed = _packed_val(root)
    for file, wnid in _val(benchmark, root):
        if wnid not in number:
            raise official.damaged(root / "val", f"{file} is of {wnid}, a class without training images")
        size, place = packed.get(file, (0, ()))
        key = file.rpartition("/")[2]
        entries.append(OfficialImage(f"val/{file}", "test", (number[wnid],), key=key, size=size, place=place))
    return OfficialListing(entries, classes)


_TrainImage = tuple[str, int, tuple[int, ...]]
"""Name, bytes where they are known, place in a tar."""


def _train(benchmark: Benchmark, root: Path) -> Iterator[tuple[str, _TrainImage]]:
    """Class and image, of folders and tars alike."""
    if not (root / "train").is_dir() and (root / TRAIN_TAR).is_file():
        yield from _packed_train(root / TRAIN_TAR)
    for path in sorted((root / "train").iterdir()) if (root / "train").is_dir() else ():
        if path.is_dir():
            yield from ((path.name, (f"train/{path.name}/{file.name}", 0, ())) for file in sorted(path.glob("*.JPEG")))
        elif path.suffix == ".tar":
            yield from ((path.stem, found) for found in _members(path, path.name))


def _members(path: Path, name: str, at: int = 0, inside: IO[bytes] | None = None) -> Iterator[_TrainImage]:
    """Images of one class's tar, by its headers alone; of one `inside` another it begins `at` a byte of that."""
    with official.reading(path), tarfile.open(path, "r:", inside) as archive:
        for member in archive:
            if member.isfile():
                yield f"train/{name}/{member.name}", member.size, (at + member.offset_data, member.size)


def _packed_train(path: Path) -> Iterator[tuple[str, _TrainImage]]:
    """As of a folder of tars, of the one that holds them."""
    with official.reading(path), tarfile.open(path, "r:") as archive:
        for member in archive:
            name, inside = member.name.rpartition("/")[2], archive.extractfile(member)
            if inside is not None and name.endswith(".tar"):
                found = _members(path, name, member.offset_data, inside)
                yield from ((name.removesuffix(".tar"), image) for image in found)


def _packed_val(root: Path) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Size and place of each validation image by its name, where they are still packed."""
    path = root / VAL_TAR
    if (root / "val").is_dir() or not path.is_file():
        return {}
    with official.reading(path), tarfile.open(path, "r:") as archive:
        files = [member for member in archive if member.isfile()]
    return {one.name.rpartition("/")[2]: (one.size, (one.offset_data, one.size)) for one in files}


def _tar_of(root: Path, item: Item) -> str:
    """The file that an image lies in."""
    first, second = item.name.split("/")[:2]
    own = f"{first}/{second}"
    if not item.place or (root / own).is_file():
        return item.name if not item.place else own
    return TRAIN_TAR if first == "train" else VAL_TAR


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
        with (root / _tar_of(root, item)).open("rb") as file:
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


IMAGENET = Reader(_imagenet, _read, file_of=_tar_of)
IMAGENET_REAL = Reader(_real)
