"""Readers of official lists beside a tree of image files: Oxford Pets, Flowers-102, DTD, Sun397, Cars, Birds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vitpipe.stages.images.decode import encoded
from vitpipe.stages.ingest.benchmarks import entries as official
from vitpipe.stages.ingest.benchmarks.array_files import read_mat
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage, OfficialListing, Reader, damaged, list_lines
from vitpipe.stages.ingest.benchmarks.opencv_like import resize_by
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item

SUN397_PIXELS = 120_000
"""TensorFlow Datasets shrinks larger images of Sun397 to so many pixels."""
SUN397_QUALITY = 95
"""Quality of the JPEG that it keeps: OpenCV's default."""
_SUN397_LEFT_OUT = {"/c/church/outdoor/sun_bhenjvsvrtumjuri.jpg", "/t/track/outdoor/sun_aophkoiosslinihb.jpg"}
"""Broken files of the archive, in no list of TensorFlow Datasets' examples."""


def _pets(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Lines `Abyssinian_100 1 1 1`: the image, the class from 1, cat or dog, the breed within it."""
    entries, names = [], dict[int, str]()
    for split, file in (("train", "trainval"), ("test", "test")):
        path = root / "annotations" / f"{file}.txt"
        for line in list_lines(path):
            parts = line.split()
            if len(parts) != 4 or not parts[1].isdigit():
                raise damaged(path, f"a line says {line!r}")
            label, name = int(parts[1]) - 1, parts[0].rsplit("_", 1)[0].replace("_", " ")
            if names.setdefault(label, name) != name:
                raise damaged(path, f"class {parts[1]} is {name!r} there, and {names[label]!r} before")
            entries.append(OfficialImage(f"images/{parts[0]}.jpg", split, (label,), key=f"{parts[0]}.jpg"))
    return OfficialListing(entries, tuple(names.get(label, str(label)) for label in range(max(names, default=-1) + 1)))


def _flowers(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Image numbers of each split in setid.mat, classes from 1 in imagelabels.mat; the authors name no class."""
    labels = _numbers(root / "imagelabels.mat", "labels") - 1
    entries = []
    for split, key in (("train", "trnid"), ("validation", "valid"), ("test", "tstid")):
        for number in _numbers(root / "setid.mat", key).tolist():
            if not 0 < number <= len(labels):
                raise damaged(root / "setid.mat", f"image {number} of {len(labels)}")
            name = f"image_{number:05d}.jpg"
            entries.append(OfficialImage(f"jpg/{name}", split, (int(labels[number - 1]),), key=name))
    return OfficialListing(entries, tuple(str(number) for number in range(1, int(labels.max()) + 2)))


def _numbers(path: Path, key: str) -> np.ndarray:
    content = read_mat(path)
    if key not in content:
        raise damaged(path, f"it has no {key!r}, only {', '.join(name for name in content if name[0] != '_')}")
    return np.asarray(content[key], dtype=np.int64).ravel()


def _dtd(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Lines `banded/banded_0002.jpg`; the first division of ten."""
    files = {"train": "train1", "validation": "val1", "test": "test1"}
    return _by_folder("images/", {split: list_lines(root / "labels" / f"{file}.txt") for split, file in files.items()})


def _sun397(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Lines `/a/abbey/sun_aaaulhwrhqgejnyt.jpg` of TensorFlow Datasets' own lists; the folder is the class."""
    files = {"train": "tr", "validation": "va", "test": "te"}
    lines = {split: list_lines(root / f"sun397_tfds_{letters}.txt") for split, letters in files.items()}
    whole = {split: [line for line in found if line not in _SUN397_LEFT_OUT] for split, found in lines.items()}
    return _by_folder("SUN397", whole)


def _by_folder(prefix: str, lines: Mapping[str, Sequence[str]]) -> OfficialListing:
    """Images of each split by their lines, which go on from `prefix`; the folder of a file is its class."""
    found = [(line, line.rsplit("/", 1)[0], split) for split, listed in lines.items() for line in listed]
    classes = tuple(sorted({folder for _, folder, _ in found}))
    number = {name: label for label, name in enumerate(classes)}
    entries = [OfficialImage(prefix + line, split, (number[folder],), key=line) for line, folder, split in found]
    return OfficialListing(entries, classes)


def _read_sun397(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    """At most 120,000 pixels, as a JPEG whatever the file is in truth: the archive has PNG, BMP and GIF under .jpg."""
    image = official.decoded(benchmark, root, item)
    pixels = image.width * image.height
    if pixels > SUN397_PIXELS:
        image = Image.fromarray(resize_by(np.asarray(image), (SUN397_PIXELS / pixels) ** 0.5))
    return encoded(image, "JPEG", quality=SUN397_QUALITY)


def _cars(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Annotation structures of two mat files: `fname` and `class` from 1; names in cars_meta.mat."""
    entries = []
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        with official.reading(root / file, "no annotations with fname and class"):
            for row in read_mat(root / file)["annotations"].ravel():
                image, label = str(row["fname"].item()), int(row["class"].item()) - 1
                entries.append(OfficialImage(f"cars_{split}/{image}", split, (label,), key=image.split(".")[0]))
    names = read_mat(root / "devkit/cars_meta.mat").get("class_names")
    if names is None:
        raise damaged(root / "devkit/cars_meta.mat", "it has no 'class_names'")
    return OfficialListing(entries, tuple(str(name.item()) for name in names.ravel()))


def _birds(benchmark: Benchmark, root: Path) -> OfficialListing:
    """Four lists by image number: its path, its class from 1, whether it trains; and the classes' names."""
    paths, labels, trains = (
        _by_number(root / f"{name}.txt") for name in ("images", "image_class_labels", "train_test_split")
    )
    classes = _by_number(root / "classes.txt")
    if not paths.keys() == labels.keys() == trains.keys():
        raise damaged(root / "images.txt", f"the lists have {len(paths)}, {len(labels)} and {len(trains)} images")
    entries = []
    for number, path in paths.items():
        split, label = "train" if trains[number] == "1" else "test", int(labels[number]) - 1
        entries.append(OfficialImage(f"images/{path}", split, (label,), key=f"CUB_200_2011/images/{path}"))
    if sorted(classes, key=int) != [str(number) for number in range(1, len(classes) + 1)]:
        raise damaged(root / "classes.txt", f"its {len(classes)} classes are not numbered from 1 without gaps")
    return OfficialListing(entries, tuple(classes[str(number)] for number in range(1, len(classes) + 1)))


def _by_number(path: Path) -> dict[str, str]:
    rows = [line.split(" ", 1) for line in list_lines(path)]
    if any(len(row) != 2 for row in rows):
        raise damaged(path, "a line has no number and value")
    return dict(rows)


PETS, FLOWERS, DTD, CARS, BIRDS = map(Reader, (_pets, _flowers, _dtd, _cars, _birds))
SUN397 = Reader(_sun397, _read_sun397, costly=True)
