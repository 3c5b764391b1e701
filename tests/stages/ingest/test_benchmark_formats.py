"""Readers of official formats that hold images in files of many: labels and pixels exact, damage told, no code run."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from official_files import (
    damage,
    found_in,
    official,
    old_pickle,
    pixels,
    read_named,
    without_member,
    write_cifar10,
    write_cifar100,
    write_dsprites,
    write_mnist,
    write_norb,
    write_pcam,
    write_smallnorb,
    write_svhn,
)
from tf_records import tf_example, write_dmlab
from torchvision.datasets import CIFAR100, PCAM, SVHN

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks import matrices
from vitpipe.stages.ingest.benchmarks.array_files import read_idx, read_inert_pickle
from vitpipe.stages.ingest.benchmarks.matrices import DSPRITES_FILE, read_norb
from vitpipe.stages.ingest.benchmarks.registry import SplitSlice
from vitpipe.stages.ingest.benchmarks.tfrecord import example_features, tf_records

EVERY = {"parts": {}}
"""The official splits as they are: the files are too small for VTAB's cut."""


def test_idx(tmp_path, monkeypatch):
    write_mnist(tmp_path, 20, 10)
    source = official(monkeypatch, "mnist", tmp_path, {"train": 20, "test": 10})
    listing = source.listing()
    assert [item.split for item in listing.items] == ["test"] * 10 + ["train"] * 20
    assert listing.classes == tuple("0123456789")
    train = read_idx(tmp_path / "train-images-idx3-ubyte.gz")
    assert found_in(source)["train/000013"] == ("train", (3,))
    assert (pixels(read_named(source, "train/000013")) == train[13]).all()


def test_cifar10(tmp_path, monkeypatch):
    write_cifar10(tmp_path, 4)
    source = official(monkeypatch, "cifar10", tmp_path, {"train": 20, "test": 4})
    assert source.listing().classes[3] == "name 3"
    row = read_inert_pickle(tmp_path / "cifar-10-batches-py" / "data_batch_2")["data"][1]
    assert found_in(source)["train/000005"] == ("train", (1,)), "the second of the second batch"
    assert (pixels(read_named(source, "train/000005")) == row.reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_cifar100_is_torchvisions(tmp_path, monkeypatch):
    write_cifar100(tmp_path, 250, 100)
    source = official(monkeypatch, "cifar100", tmp_path, {"train": 250, "test": 100})
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR100, "_load_meta", lambda self: None)
    for split, train in (("train", True), ("test", False)):
        theirs = CIFAR100(tmp_path, train=train)
        for number in (0, 7, 99):
            image, label = theirs[number]
            assert found_in(source)[f"{split}/{number:06d}"] == (split, (label,))
            assert (pixels(read_named(source, f"{split}/{number:06d}")) == np.asarray(image)).all()
    assert source.listing().classes[42] == "fine 42"


def test_a_pickle_that_names_code_is_not_opened(tmp_path):
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return Path.touch, (touched,)

    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Evil()}))
    with pytest.raises(UsageError, match="which is no array"):
        read_inert_pickle(tmp_path / "batch")
    assert not touched.exists()
    pickle.loads((tmp_path / "batch").read_bytes())
    assert touched.exists(), "the ordinary way would have run it"


def test_a_pickle_of_something_else_is_told(tmp_path, monkeypatch):
    write_cifar10(tmp_path, 4)
    old_pickle(tmp_path / "cifar-10-batches-py" / "data_batch_3", {"data": np.zeros((4, 9), np.uint8)})
    with pytest.raises(IntegrityError, match=r"data_batch_3: no batch of CIFAR"):
        official(monkeypatch, "cifar10", tmp_path, {"train": 20, "test": 4}).listing()


def test_svhn_is_torchvisions(tmp_path, monkeypatch):
    kept = write_svhn(tmp_path, 12, 11)
    source = official(monkeypatch, "svhn", tmp_path, {"train": 12, "test": 11})
    assert found_in(source)["train/000010"] == ("train", (0,)), "the digit 0 is stored as class 10"
    assert (pixels(read_named(source, "test/000004")) == kept["test"][4]).all()
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    theirs = SVHN(tmp_path, "train")
    assert [labels[0] for split, labels in found_in(source).values() if split == "train"] == theirs.labels.tolist()
    assert (pixels(read_named(source, "train/000003")) == np.asarray(theirs[3][0])).all()


@pytest.mark.parametrize(("task", "classes", "of"), [("azimuth", 18, 18), ("elevation", 9, 9)])
def test_smallnorb(tmp_path, monkeypatch, task, classes, of):
    kept = write_smallnorb(tmp_path, 40)
    source = official(monkeypatch, f"vtab-smallnorb-{task}", tmp_path, {"train": 40, "test": 40}, **EVERY)
    found = found_in(source)
    assert [found[f"train/{n:06d}"][1][0] for n in range(40)] == [n % of for n in range(40)]
    assert len(source.listing().classes) == classes
    assert (pixels(read_named(source, "test/000007")) == kept["test"][7, 0]).all(), "of a pair the first camera"


def test_a_norb_file_that_is_none_or_too_short_or_too_long(tmp_path):
    path = tmp_path / "x.mat.gz"
    array = np.arange(24, dtype=np.int32).reshape(6, 4)
    write_norb(path, array)
    assert (read_norb(path) == array).all()
    whole = gzip.decompress(path.read_bytes())
    for broken, told in ((b"\0" * 40, "no NORB matrix"), (whole[:-1], "buffer size"), (whole + b"\0", "left over")):
        path.write_bytes(gzip.compress(broken))
        with pytest.raises(IntegrityError, match=told):
            read_norb(path)


@pytest.mark.parametrize(
    ("task", "label"), [("location", lambda n: n % 32 // 2), ("orientation", lambda n: n % 40 * 2 // 5)]
)
def test_dsprites(tmp_path, monkeypatch, task, label):
    images = write_dsprites(tmp_path, 90)
    monkeypatch.setattr(matrices, "_ROWS_AT_ONCE", 32)
    parts = {"train": (SplitSlice("train", 0, 60),), "test": (SplitSlice("train", 60),)}
    source = official(monkeypatch, f"vtab-dsprites-{task}", tmp_path, {"train": 90}, parts=parts)
    found = found_in(source)
    assert [found[f"train/{n:06d}"][1][0] for n in range(90)] == [label(n) for n in range(90)]
    assert {labels[0] for _, labels in found.values()} == set(range(16))
    assert sum(split == "test" for split, _ in found.values()) == 30
    for n in (0, 33, 89):
        assert (pixels(read_named(source, f"train/{n:06d}")) == images[n] * 255).all(), "black and white, not 0 and 1"


def test_a_dsprites_file_without_its_images_or_labels(tmp_path, monkeypatch):
    write_dsprites(tmp_path, 40)
    source = official(monkeypatch, "vtab-dsprites-location", tmp_path, {"train": 40}, **EVERY)
    item = source.listing().items[0]
    matrices._sprites.cache_clear()
    without_member(tmp_path / DSPRITES_FILE, "imgs.npy")
    with pytest.raises(IntegrityError, match=r"imgs\.npy"):
        source.read(item)
    without_member(tmp_path / DSPRITES_FILE, "latents_classes.npy")
    with pytest.raises(IntegrityError, match="latents_classes"):
        source.listing()


def test_patch_camelyon_is_torchvisions(tmp_path, monkeypatch):
    root = tmp_path / "pcam"
    root.mkdir()
    kept = write_pcam(root, 6)
    source = official(monkeypatch, "patch_camelyon", root, dict.fromkeys(("train", "validation", "test"), 6))
    found = found_in(source)
    for split, their_split, file in (
        ("train", "train", "train"),
        ("validation", "val", "valid"),
        ("test", "test", "test"),
    ):
        theirs = PCAM(tmp_path, their_split)
        for n in range(6):
            image, label = theirs[n]
            assert found[f"{split}/{n:06d}"] == (split, (label,))
            assert (pixels(read_named(source, f"{split}/{n:06d}")) == np.asarray(image)).all()
            assert (np.asarray(image) == kept[file][n]).all()


def test_without_h5py_patch_camelyon_says_what_to_install(tmp_path, monkeypatch):
    write_pcam(tmp_path, 2)
    source = official(monkeypatch, "patch_camelyon", tmp_path, dict.fromkeys(("train", "validation", "test"), 2))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UsageError, match=r"h5py is not installed.*Type `pip install h5py`"):
        source.listing()


def test_dmlab(tmp_path, monkeypatch):
    kept = write_dmlab(tmp_path, 7)
    source = official(monkeypatch, "dmlab", tmp_path, {"train": 14, "validation": 7, "test": 7})
    found = found_in(source)
    assert found["train/train-1-3.jpg"] == ("train", (3,)) and found["test/test-0-6.jpg"] == ("test", (0,))
    for name in ("train-1-3.jpg", "train-0-0.jpg", "validation-0-5.jpg"):
        assert read_named(source, f"{name.split('-')[0]}/{name}") == kept[name], "images pass as they are"


def test_a_damaged_record_is_one_bad_image_a_broken_frame_ends_it_all(tmp_path, monkeypatch):
    write_dmlab(tmp_path, 3)
    source = official(monkeypatch, "dmlab", tmp_path, {"train": 6, "validation": 3, "test": 3})
    items = source.listing().items
    path = tmp_path / "dmlab-test.tfrecord-00000-of-00001"
    place = next(item.place[1] for item in items if item.name == "test/test-0-1.jpg")
    damage(path, lambda data: data[: place + 80] + bytes([data[place + 80] ^ 1]) + data[place + 81 :])
    reads = {item.name: kind for item, kind in zip(items, source.reads(items), strict=True) if item.split == "test"}
    assert [isinstance(reads[f"test/test-0-{n}.jpg"], BadImage) for n in range(3)] == [False, True, False]
    damage(path, lambda data: data[: place - 12] + struct.pack("<Q", 5) + data[place - 4 :])
    with pytest.raises(IntegrityError, match=f"no record begins at byte {place - 12}"):
        list(tf_records(path))
    damage(path, lambda data: data[: place - 20])
    with pytest.raises(IntegrityError, match="ends within a record"):
        list(tf_records(path))


def test_examples_as_protobuf_encodes_them():
    features = {"image": b"\xff\xd8" * 200, "filename": b"a", "label": 300, "zero": 0, "empty": b""}
    found = example_features(tf_example(**features))
    assert {name: found[name] for name in ("image", "filename", "label")} == {
        name: features[name] for name in ("image", "filename", "label")
    }
    for broken in (tf_example(**features)[:-3], b"\x0a\xff", b"\x0b"):
        with pytest.raises(ValueError):
            example_features(broken)
