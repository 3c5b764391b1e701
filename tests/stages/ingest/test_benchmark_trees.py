"""Readers of official lists and folders beside image files: splits and classes exact, and as torchvision reads them."""

import numpy as np
import pytest
from official_files import (
    damage,
    found_in,
    official,
    pixels,
    read_named,
    write_images,
    write_text,
)
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import DTD, EuroSAT, Flowers102, OxfordIIITPet

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY

EVERY = {"parts": {}}


def test_pets_are_torchvisions(tmp_path, monkeypatch):
    root = tmp_path / "oxford-iiit-pet"
    write_text(root, annotations__trainval="# a comment\nBengal_7 1 1 1\ngreat_dane_1 2 2 1\n",
               annotations__test="Bengal_9 1 1 1\n")  # fmt: skip
    write_images(root, "images/great_dane_1.jpg", "images/Bengal_7.jpg", "images/Bengal_9.jpg")
    source = official(monkeypatch, "oxford_iiit_pet", root, {"train": 2, "test": 1}, num_classes=2)
    listing = source.listing()
    assert listing.classes == ("Bengal", "great dane")
    found = found_in(source)
    assert found["images/great_dane_1.jpg"] == ("train", (1,)) and found["images/Bengal_9.jpg"] == ("test", (0,))
    assert source.read(listing.items[0]) == (root / listing.items[0].name).read_bytes(), "files pass as they are"
    damage(root / "annotations" / "trainval.txt", lambda data: data.removeprefix(b"# a comment\n"))
    theirs = OxfordIIITPet(tmp_path, "trainval")
    assert [(path.name, label) for path, label in zip(theirs._images, theirs._labels, strict=True)] == [
        ("Bengal_7.jpg", 0), ("great_dane_1.jpg", 1)
    ]  # fmt: skip
    (root / "images" / "Bengal_9.jpg").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 listed images are missing: 'images/Bengal_9\.jpg'"):
        source.listing()
    write_text(root, annotations__test="Bengal_9 one 1 1\n")
    with pytest.raises(IntegrityError, match="a line says 'Bengal_9 one 1 1'"):
        official(monkeypatch, "oxford_iiit_pet", root, {"train": 2, "test": 1}).listing()


def test_flowers_are_torchvisions(tmp_path, monkeypatch):
    root = tmp_path / "flowers-102"
    write_images(root, *(f"jpg/image_{number:05d}.jpg" for number in range(1, 7)))
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 3, 2, 1, 2, 2]])})
    savemat(root / "setid.mat", {"trnid": [[4, 5]], "valid": [[1, 6]], "tstid": [[2, 3]]})
    images = {"train": 2, "validation": 2, "test": 2}
    source = official(monkeypatch, "oxford_flowers102", root, images, num_classes=3)
    found = found_in(source)
    assert found["jpg/image_00002.jpg"] == ("test", (2,)) and found["jpg/image_00004.jpg"] == ("train", (0,))
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)
    for split, their_split in (("train", "train"), ("validation", "val"), ("test", "test")):
        theirs = Flowers102(tmp_path, their_split)
        named = zip((f"jpg/{path.name}" for path in theirs._image_files), theirs._labels, strict=True)
        assert {name: (split, (label,)) for name, label in named} == {
            name: told for name, told in found.items() if told[0] == split
        }
    savemat(root / "setid.mat", {"trnid": [[4, 7]], "valid": [[1]], "tstid": [[2, 3]]})
    with pytest.raises(IntegrityError, match="image 7 of 6"):
        official(monkeypatch, "oxford_flowers102", root, images).listing()


def test_dtd_is_torchvisions(tmp_path, monkeypatch):
    root = tmp_path / "dtd" / "dtd"
    lists = {"train1": "zigzag/a.jpg\nbanded/b.jpg\n", "val1": "banded/c.jpg\n", "test1": "zigzag/d.jpg\n"}
    write_text(root, **{f"labels__{name}": text for name, text in lists.items()})
    write_images(root, *(f"images/{line}" for text in lists.values() for line in text.split()))
    source = official(monkeypatch, "dtd", root, {"train": 2, "validation": 1, "test": 1}, num_classes=2)
    assert source.listing().classes == ("banded", "zigzag")
    found = found_in(source)
    assert found["images/banded/c.jpg"] == ("validation", (0,))
    theirs = DTD(tmp_path, "train")
    for path, label in zip(theirs._image_files, theirs._labels, strict=True):
        assert found[str(path.relative_to(root))] == ("train", (label,))


def test_sun397_is_jpeg_of_at_most_120000_pixels_whatever_the_file_is(tmp_path, monkeypatch):
    lists = {"tr": "/a/abbey/sun_a.jpg\n/b/bar/sun_b.jpg\n", "va": "/a/abbey/sun_c.jpg\n", "te": "/b/bar/sun_d.jpg\n"}
    write_text(tmp_path, **{f"sun397_tfds_{name}": text for name, text in lists.items()})
    write_images(tmp_path, "SUN397/a/abbey/sun_a.jpg", "SUN397/a/abbey/sun_c.jpg", "SUN397/b/bar/sun_b.jpg")
    Image.new("RGB", (900, 400), (0, 90, 200)).save(tmp_path / "SUN397/b/bar/sun_d.jpg", "BMP")
    images = {"train": 2, "validation": 1, "test": 1}
    source = official(monkeypatch, "sun397", tmp_path, images, num_classes=2)
    assert source.listing().classes == ("/a/abbey", "/b/bar")
    assert found_in(source)["SUN397/b/bar/sun_d.jpg"] == ("test", (1,))
    data = read_named(source, "SUN397/b/bar/sun_d.jpg")
    assert data[:2] == b"\xff\xd8" and pixels(data).shape == (231, 520, 3) and 231 * 520 <= 120_200
    assert pixels(read_named(source, "SUN397/a/abbey/sun_a.jpg")).shape == (8, 8, 3)


def test_cars(tmp_path, monkeypatch):
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    rows = {
        "devkit/cars_train_annos.mat": [(1, 2, "00001.jpg"), (1, 1, "00002.jpg")],
        "cars_test_annos_withlabels.mat": [(1, 2, "00001.jpg")],
    }
    (tmp_path / "devkit").mkdir()
    for name, each in rows.items():
        savemat(tmp_path / name, {"annotations": np.array(each, dtype=kind)})
    savemat(
        tmp_path / "devkit/cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Acura RL"], dtype=object)}
    )
    write_images(tmp_path, "cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg")
    source = official(monkeypatch, "cars196", tmp_path, {"train": 2, "test": 1}, num_classes=2)
    assert source.listing().classes == ("AM General Hummer", "Acura RL")
    assert found_in(source) == {
        "cars_train/00001.jpg": ("train", (1,)), "cars_train/00002.jpg": ("train", (0,)),
        "cars_test/00001.jpg": ("test", (1,)),
    }  # fmt: skip
    savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": np.array([(1,)], dtype=[("bbox_x1", "O")])})
    with pytest.raises(IntegrityError, match="no annotations with fname and class"):
        official(monkeypatch, "cars196", tmp_path, {"train": 2, "test": 1}).listing()


def test_birds(tmp_path, monkeypatch):
    write_text(tmp_path, images="1 001.Albatross/a.jpg\n2 002.Sooty/b.jpg\n3 002.Sooty/c.jpg\n",
               image_class_labels="1 1\n2 2\n3 2\n", train_test_split="1 1\n2 1\n3 0\n",
               classes="1 001.Albatross\n2 002.Sooty\n")  # fmt: skip
    write_images(tmp_path, "images/001.Albatross/a.jpg", "images/002.Sooty/b.jpg", "images/002.Sooty/c.jpg")
    source = official(monkeypatch, "caltech_birds2011", tmp_path, {"train": 2, "test": 1}, num_classes=2)
    assert found_in(source)["images/002.Sooty/c.jpg"] == ("test", (1,))
    assert found_in(source)["images/001.Albatross/a.jpg"] == ("train", (0,))
    write_text(tmp_path, image_class_labels="1 1\n2 2\n")
    with pytest.raises(IntegrityError, match="the lists have 3, 2 and 3 images"):
        official(monkeypatch, "caltech_birds2011", tmp_path, {"train": 2, "test": 1}).listing()


def test_class_folders_are_torchvisions_and_their_names_are_fixed(tmp_path, monkeypatch):
    root = tmp_path / "eurosat"
    classes = REGISTRY["eurosat"].classes
    write_images(root, *(f"2750/{name}/{name}_{n}.jpg" for name in classes for n in (1, 2)))
    source = official(monkeypatch, "eurosat", root, {"train": 20}, **EVERY)
    theirs = EuroSAT(tmp_path)
    assert {path.split("eurosat/")[1]: ("train", (label,)) for path, label in theirs.samples} == found_in(source)
    (root / "2750" / "River").rename(root / "2750" / "Rivers")
    with pytest.raises(
        IntegrityError, match=r"1 class folders are missing: 'river'; 1 are none of its classes: 'Rivers'"
    ):
        source.listing()
    (root / "2750" / "Rivers").rename(root / "2750" / "River")
    write_images(root, "2750/River/River_3.jpg")
    with pytest.raises(IntegrityError, match="train has 1 more than promised"):
        source.listing()


def test_uc_merced_becomes_png(tmp_path, monkeypatch):
    classes = REGISTRY["uc_merced"].classes
    folder = "UCMerced_LandUse/Images"
    write_images(tmp_path, *(f"{folder}/{name}/{name}00.tif" for name in classes), kind="TIFF")
    source = official(monkeypatch, "uc_merced", tmp_path, {"train": 21}, **EVERY)
    name = f"{folder}/river/river00.tif"
    assert found_in(source)[name] == ("train", (classes.index("river"),))
    with Image.open(tmp_path / name) as image:
        assert (pixels(read_named(source, name)) == np.asarray(image)).all()


def test_caltech101_trains_on_thirty_of_a_class(tmp_path, monkeypatch):
    counts = {name: 31 for name in REGISTRY["caltech101"].classes}
    folder = tmp_path / "101_ObjectCategories"
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for n in range(count):
            (folder / name / f"image_{n:04d}.jpg").touch()
    (folder / "background_google").rename(folder / "BACKGROUND_Google")
    (folder / "BACKGROUND_Google" / "tmp").touch()
    source = official(monkeypatch, "caltech101", tmp_path, {"train": 3060, "test": 102})
    found = found_in(source)
    assert found["101_ObjectCategories/BACKGROUND_Google/image_0000.jpg"][1] == (4,), "classes go by their lower case"
    assert [sum(told == ("test", (label,)) for told in found.values()) for label in (0, 4, 101)] == [1, 1, 1]
    drawn = {name for name, told in found.items() if told[0] == "test"}
    assert len({name.rsplit("/", 1)[1] for name in drawn}) > 10, "not the same number of every class"
    assert drawn == {name for name, told in found_in(source).items() if told[0] == "test"}


BIRDS = {
    "images": "1 001.A/a.jpg\n2 002.S/b.jpg\n",
    "image_class_labels": "1 1\n2 2\n",
    "train_test_split": "1 1\n2 0\n",
    "classes": "1 001.A\n2 002.S\n",
}
PETS = {"annotations__trainval": "Bengal_7 1 1 1\n", "annotations__test": "great_dane_1 2 2 1\n"}


@pytest.mark.parametrize(
    ("name", "lists", "found"),
    [
        ("oxford_iiit_pet", PETS | {"annotations__test": "great_dane_1 1 2 1\n"},
         "class 1 is 'great dane' there, and 'Bengal' before"),
        ("caltech_birds2011", BIRDS | {"classes": "1 001.A\n3 002.S\n"}, "not numbered from 1 without gaps"),
        ("caltech_birds2011", BIRDS | {"image_class_labels": "1 1\n2 3\n"}, r"classes \(2,\), numbers end at 1"),
        ("caltech_birds2011", BIRDS | {"classes": "1 001.A\n2 001.A\n"}, "two of its classes have one name: '001.A'"),
    ],
)  # fmt: skip
def test_lists_that_name_a_number_twice_or_not_at_all(tmp_path, monkeypatch, name, lists, found):
    write_text(tmp_path, **lists)
    write_images(tmp_path, "images/001.A/a.jpg", "images/002.S/b.jpg", "images/Bengal_7.jpg", "images/great_dane_1.jpg")
    source = official(monkeypatch, name, tmp_path, {"train": 1, "test": 1}, num_classes=2)
    with pytest.raises(IntegrityError, match=f"(?i){found}"):
        source.listing()
