"""Readers of trees whose folders are the classes: Caltech101, EuroSAT, Resisc45, UC Merced, ImageNet-V2."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.decode import encoded
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage, OfficialListing, Reader, decoded, read_file
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item, some

CALTECH_TRAIN_PER_CLASS = 30
CALTECH_SEED = 1234


def class_folders(
    benchmark: Benchmark, root: Path, folder: str, suffix: str, folders: Sequence[str] = ()
) -> Iterator[tuple[int, str, list[str]]]:
    """Class, folder name and sorted image names of every class; `folders` in their order where they are called
    otherwise than the classes. IntegrityError for missing or extra folders."""
    there = sorted(path.name for path in (root / folder).iterdir() if path.is_dir()) if (root / folder).is_dir() else []
    wanted = {name.lower(): label for label, name in enumerate(folders or benchmark.classes)}
    extra = [name for name in there if name.lower() not in wanted]
    lacking = sorted(set(wanted) - {name.lower() for name in there})
    if extra or lacking:
        found = [f"{len(lacking)} class folders are missing: {some(lacking)}"] if lacking else []
        found += [f"{len(extra)} are none of its classes: {some(extra)}"] if extra else []
        raise IntegrityError(f"ingest {benchmark.title} from {root / folder}", "; ".join(found), benchmark.obtain)
    for name in there:
        names = sorted(path.name for path in (root / folder / name).iterdir() if path.suffix.lower() == suffix)
        yield wanted[name.lower()], name, names


def _plain(folder: str, suffix: str, key: str, split: str = "train", numbered: bool = False) -> Reader:
    """All images of one split; `key` is a pattern of `folder` and `file`. Folders are names, or numbers, of classes."""

    def listed(benchmark: Benchmark, root: Path) -> OfficialListing:
        folders = [str(number) for number in range(benchmark.num_classes)] if numbered else []
        entries = [
            OfficialImage(f"{folder}/{name}/{file}", split, (label,), key=key.format(folder=name, file=file))
            for label, name, files in class_folders(benchmark, root, folder, suffix, folders)
            for file in files
        ]
        return OfficialListing(entries, benchmark.classes)

    return Reader(listed, _as_png if suffix == ".tif" else read_file)


def _as_png(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    """TIFF is no format of ours."""
    return encoded(decoded(benchmark, root, item), "PNG")


def _caltech(benchmark: Benchmark, root: Path) -> OfficialListing:
    """30 images of each class train, the rest tests: numpy's choice with TensorFlow Datasets' seed, over sorted names.

    They draw over names in the order in which a file system listed them, which nobody can know any more.
    """
    rng = np.random.RandomState(CALTECH_SEED)
    entries = []
    for label, name, files in class_folders(benchmark, root, "101_ObjectCategories", ".jpg"):
        if len(files) < CALTECH_TRAIN_PER_CLASS:
            found = f"class {name!r} has {len(files)} images, at least {CALTECH_TRAIN_PER_CLASS} are needed"
            raise IntegrityError(f"ingest {benchmark.title} from {root}", found, benchmark.obtain)
        train = set(rng.choice(files, CALTECH_TRAIN_PER_CLASS, replace=False).tolist())
        for file in files:
            place, split = f"{name}/{file}", "train" if file in train else "test"
            entries.append(OfficialImage(f"101_ObjectCategories/{place}", split, (label,), key=place))
    return OfficialListing(entries, benchmark.classes)


CALTECH101 = Reader(_caltech)
EUROSAT = _plain("2750", ".jpg", "{folder}_{file}")
RESISC45 = _plain("NWPU-RESISC45", ".jpg", "{folder}_{file}")
UC_MERCED = _plain("UCMerced_LandUse/Images", ".tif", "{file}")
IMAGENET_V2 = _plain("imagenetv2-matched-frequency-format-val", ".jpeg", "{folder}_{file}", "test", numbered=True)
