"""Every data set that a shipped config names, small and in its authors' layout, below one folder.

A few images each; the registry is told their numbers. Written by the writers of `official_files`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_files import (
    official,
    write_cifar10,
    write_cifar100,
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

from vitpipe.stages.images.wordnet import imagenet_ids
from vitpipe.stages.ingest.benchmarks import class_trees
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, SplitSlice

VAL = "ILSVRC2012_val_{:08d}.JPEG"
V2 = "imagenetv2-matched-frequency-format-val"
SPARE = 10
"""Classes of ImageNet with more than one training image, so that a dev split can be held out."""


def write_imagenet(root: Path, tests: str = "test") -> None:
    """Folders of all the WordNet ids: one image trains a class, two some; twelve test, in folders too."""
    ids = imagenet_ids()
    write_images(root, *(f"train/{wnid}/{wnid}_{n}.JPEG" for wnid in ids for n in range(1)), kind="JPEG")
    write_images(root, *(f"train/{wnid}/{wnid}_1.JPEG" for wnid in ids[:SPARE]), kind="JPEG")
    write_images(root, *(f"{tests}/{ids[n]}/{VAL.format(n + 1)}" for n in range(12)), kind="JPEG")


def write_real(root: Path, rights: Iterable[Iterable[int]]) -> None:
    """`real.json` beside the validation images, which lie flat in `val` where nobody has sorted them."""
    rows = [list(each) for each in rights]
    (root / "val").mkdir(parents=True, exist_ok=True)
    there = {path.name for path in (root / "val").rglob("*.JPEG")}
    names = [VAL.format(n) for n in range(1, len(rows) + 1)]
    write_images(root, *(f"val/{name}" for name in names if name not in there), kind="JPEG")
    (root / "real.json").write_text(json.dumps(rows))


def write_v2(root: Path, classes: Iterable[int]) -> None:
    """A folder for each of the thousand numbers, and an image in some."""
    for number in range(1000):
        (root / V2 / str(number)).mkdir(parents=True)
    write_images(root, *(f"{V2}/{number}/{n:02d}.jpeg" for n, number in enumerate(classes)), kind="JPEG")


def write_pets(root: Path) -> None:
    rows = [
        f"{breed}_{n} {label} 1 1" for label, breed in enumerate(("Bengal", "great_dane", "pug"), 1) for n in (1, 2, 3)
    ]
    write_text(root, annotations__trainval="\n".join(rows[:2] + rows[3:5] + rows[6:8]) + "\n",
               annotations__test="\n".join(rows[2::3]) + "\n")  # fmt: skip
    write_images(root, *(f"images/{row.split()[0]}.jpg" for row in rows))


def write_flowers(root: Path) -> None:
    write_images(root, *(f"jpg/image_{number:05d}.jpg" for number in range(1, 13)))
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 2, 3] * 4])})
    savemat(root / "setid.mat", {"trnid": [range(1, 7)], "valid": [[7, 8, 9]], "tstid": [[10, 11, 12]]})


def write_dtd(root: Path) -> None:
    lists = {"train1": "ab", "val1": "c", "test1": "d"}
    lines = {
        name: [f"{kind}/{kind}_{one}.jpg" for kind in ("zigzag", "banded") for one in each]
        for name, each in lists.items()
    }
    write_text(root, **{f"labels__{name}": "\n".join(each) + "\n" for name, each in lines.items()})
    write_images(root, *(f"images/{line}" for each in lines.values() for line in each))


def write_sun(root: Path) -> None:
    lists = {"tr": "abc", "va": "de", "te": "fg"}
    lines = {
        name: [f"/{kind}/sun_{one}.jpg" for kind in ("a/abbey", "b/bar") for one in each]
        for name, each in lists.items()
    }
    write_text(root, **{f"sun397_tfds_{name}": "\n".join(each) + "\n" for name, each in lines.items()})
    write_images(root, *(f"SUN397{line}" for each in lines.values() for line in each))


def write_retinopathy(root: Path) -> None:
    write_images(root, *(f"train/{n}_left.jpeg" for n in range(6)), *(f"test/{n}_left.jpeg" for n in range(4)))
    (root / "trainLabels.csv").write_text("image,level\n" + "".join(f"{n}_left,{n % 5}\n" for n in range(6)))
    lines = [f"{n}_left,{n % 5},{'Public' if n < 2 else 'Private'}\n" for n in range(4)]
    (root / "retinopathy_solution.csv").write_text("image,level,Usage\n" + "".join(lines))


def write_cars(root: Path) -> None:
    kind = [("class", "O"), ("fname", "O")]
    (root / "devkit").mkdir()
    for name, count in (("devkit/cars_train_annos.mat", 4), ("cars_test_annos_withlabels.mat", 2)):
        rows = [(n % 2 + 1, f"{n:05d}.jpg") for n in range(count)]
        savemat(root / name, {"annotations": np.array(rows, dtype=kind)})
    savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Acura RL"], dtype=object)})
    write_images(root, *(f"cars_train/{n:05d}.jpg" for n in range(4)), *(f"cars_test/{n:05d}.jpg" for n in range(2)))


def write_birds(root: Path) -> None:
    names = [f"{kind}/{n}.jpg" for kind in ("001.Albatross", "002.Sooty") for n in range(3)]
    write_text(root, images="".join(f"{n} {name}\n" for n, name in enumerate(names, 1)),
               image_class_labels="".join(f"{n} {1 + (n > 3)}\n" for n in range(1, 7)),
               train_test_split="".join(f"{n} {int(n % 3 != 0)}\n" for n in range(1, 7)),
               classes="1 001.Albatross\n2 002.Sooty\n")  # fmt: skip
    write_images(root, *(f"images/{name}" for name in names))


def write_trees(root: Path, name: str, place: str, each: int, kind: str | None = None) -> None:
    """A folder for each class of the registry, `each` images in it."""
    write_images(root, *(f"{place.format(name=one)}".replace("#", str(n)) for one in REGISTRY[name].classes
                         for n in range(1, each + 1)), kind=kind)  # fmt: skip


LAYOUTS: Mapping[str, tuple[Callable[[Path], Any], dict[str, dict[str, Any]]]] = {
    "cifar10": (lambda root: write_cifar10(root, 4), {"cifar10": {"train": 20, "test": 4}}),
    "cifar100": (lambda root: write_cifar100(root, 200, 5), {
        "cifar100": {"train": 200, "test": 5}, "vtab-cifar100": {"train": 200, "test": 5}}),
    "pets": (write_pets, {
        name: {"train": 6, "test": 3, "num_classes": 3} for name in ("oxford_iiit_pet", "vtab-pets")}),
    "flowers102": (write_flowers, {
        name: {"train": 6, "validation": 3, "test": 3, "num_classes": 3}
        for name in ("oxford_flowers102", "vtab-flowers102")}),
    "dtd": (write_dtd, {
        name: {"train": 4, "validation": 2, "test": 2, "num_classes": 2} for name in ("dtd", "vtab-dtd")}),
    "sun397": (write_sun, {"vtab-sun397": {"train": 6, "validation": 4, "test": 4, "num_classes": 2}}),
    "svhn": (lambda root: write_svhn(root, 20, 5), {"vtab-svhn": {"train": 20, "test": 5}}),
    "patch-camelyon": (lambda root: write_pcam(root, 4), {
        "vtab-patch-camelyon": {"train": 4, "validation": 4, "test": 4}}),
    "eurosat": (lambda root: write_trees(root, "eurosat", "2750/{name}/{name}_#.jpg", 2), {
        "vtab-eurosat": {"train": 20}}),
    "resisc45": (lambda root: write_trees(root, "resisc45", "NWPU-RESISC45/{name}/{name}_00#.jpg", 1), {
        "vtab-resisc45": {"train": 45}}),
    "caltech101": (lambda root: write_trees(root, "caltech101", "101_ObjectCategories/{name}/image_000#.jpg", 2), {
        name: {"train": 102, "test": 102} for name in ("caltech101", "vtab-caltech101")}),
    "uc-merced": (lambda root: write_trees(
        root, "uc_merced", "UCMerced_LandUse/Images/{name}/{name}0#.tif", 9, "TIFF"), {"uc_merced": {"train": 189}}),
    "cars": (write_cars, {"cars196": {"train": 4, "test": 2, "num_classes": 2}}),
    "birds": (write_birds, {"caltech_birds2011": {"train": 4, "test": 2, "num_classes": 2}}),
    "retinopathy": (write_retinopathy, {"vtab-diabetic-retinopathy": {"train": 6, "validation": 2, "test": 2}}),
    "clevr": (lambda root: write_clevr(root, 9, 8), {
        f"vtab-clevr-{task}": {"train": 9, "validation": 8} for task in ("count", "distance")}),
    "dmlab": (lambda root: write_dmlab(root, 6), {"vtab-dmlab": {"train": 12, "validation": 6, "test": 6}}),
    "dsprites": (lambda root: write_dsprites(root, 60), {
        f"vtab-dsprites-{task}": {"train": 60} for task in ("location", "orientation")}),
    "kitti": (lambda root: write_kitti(
        root, [[("Car", 9.0)], [("Van", 30.0)]] * 10, [f"v{n // 2}" for n in range(20)]), {
        "vtab-kitti-distance": {"train": 16, "validation": 2, "test": 2}}),
    "smallnorb": (lambda root: write_smallnorb(root, 36), {
        f"vtab-smallnorb-{task}": {"train": 36, "test": 36} for task in ("azimuth", "elevation")}),
    "fashion-mnist": (lambda root: write_mnist(root, 40, 10), {"fashion-mnist": {"train": 40, "test": 10}}),
    "imagenet-official": (lambda root: (write_imagenet(root, "val"), write_real(root, RIGHTS)), {
        **{name: {"train": 1000 + SPARE, "test": 12} for name in ("imagenet", "imagenet-fewshot")},
        "imagenet-real": {"test": 12}}),
    "imagenet-folders": (write_imagenet, {}),
    "imagenet-v2": (lambda root: write_v2(root, range(0, 60, 5)), {"imagenet-v2": {"test": 12}}),
    "own-images": (lambda root: write_images(root, *(f"{kind}/{n}.png" for kind in "abc" for n in range(8))), {}),
}  # fmt: skip
"""By folder: who writes it, and what the registry's entries that are read from it then list."""
RIGHTS = [[n, n + 500] if n % 3 else [] for n in range(12)]


def write_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each below `root`, in a folder of its name, and tell the registry."""
    monkeypatch.setattr(class_trees, "CALTECH_TRAIN_PER_CLASS", 1)
    for folder, (write, entries) in LAYOUTS.items():
        (root / folder).mkdir(parents=True)
        write(root / folder)
        for name, numbers in entries.items():
            images = {split: count for split, count in numbers.items() if split != "num_classes"}
            classes = {"num_classes": numbers["num_classes"]} if "num_classes" in numbers else {}
            official(monkeypatch, name, root / folder, images, parts=parts_of(name, images), **classes)


def parts_of(name: str, images: Mapping[str, int]) -> dict[str, tuple[SplitSlice, ...]]:
    """The entry's own parts on fewer images: the same official splits, one that gives to two is cut at 60 %."""
    parts = {split: dict.fromkeys(piece.split for piece in pieces) for split, pieces in REGISTRY[name].parts.items()}
    cut = {each: round(0.6 * count) for each, count in images.items()}
    tested = parts.get("test", {})
    found = {}
    for split, official_splits in parts.items():
        if split != "validation":
            found[split] = tuple(
                SplitSlice(each) if not (each in parts["train"] and each in tested)
                else SplitSlice(each, 0, cut[each]) if split == "train" else SplitSlice(each, cut[each])
                for each in official_splits
            )  # fmt: skip
    return found
