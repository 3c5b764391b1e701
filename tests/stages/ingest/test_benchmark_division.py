"""Which examples VTAB-1k takes: TensorFlow Datasets' order, the pieces of official splits, and lists that fix them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from official_files import found_in, official, write_mnist

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.benchmarks.division import divided, tfds_place
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, Benchmark, SplitSlice
from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PARTS = {"train": (SplitSlice("train", 0, 8), SplitSlice("test", 0, 2)), "test": (SplitSlice("test", 5),)}


def small(benchmark: str = "vtab-svhn", **images: int) -> Benchmark:
    return replace(REGISTRY[benchmark], images=images or {"train": 20, "test": 10}, parts=PARTS)


def entries(**splits: int) -> list[OfficialImage]:
    return [
        OfficialImage(f"{split}/{n}", split, (n % 10,), key=str(n))
        for split, count in splits.items()
        for n in range(count)
    ]


def test_the_order_is_that_of_the_hash_of_split_and_key():
    """tensorflow_datasets/core/hashing.py: md5(salt), then md5.update(key), as one 128-bit number."""
    salted = hashlib.md5(b"train")
    salted.update(b"image_00012.jpg")
    assert int.from_bytes(tfds_place("train", "image_00012.jpg"), "big") == int(salted.hexdigest(), 16)
    assert tfds_place("train", "1") != tfds_place("test", "1"), "the split's name salts"


@pytest.mark.parametrize(
    ("split", "key", "first"),
    [("train", "{}", [1680, 1456, 2896]), ("test", "b/image_{:05d}.jpg", [2158, 498, 1795]),
     ("validation", "c/image_{:05d}.jpg", [2401, 1703, 1342])],
)  # fmt: skip
def test_three_thousand_keys_as_tensorflow_datasets_wrote_them(split, key, first):
    """What a builder of tensorflow_datasets 4.9.10 with these keys read back first."""
    order = sorted(range(3000), key=lambda n: tfds_place(split, key.format(n)))
    assert order[:3] == first


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_tensorflow_datasets_deals_it():
    """The first labels that tensorflow_datasets 4.9.10 gave for these files."""
    listing = BenchmarkFiles("fashion-mnist", str(DEBIAN)).listing()
    for split, first in (
        ("train", [2, 1, 8, 4, 1, 9, 2, 2, 0, 2, 6, 9]),
        ("test", [4, 4, 9, 7, 5, 1, 0, 5, 7, 4, 0, 8]),
    ):
        items = [item for item in listing.items if item.split == split]
        items.sort(key=lambda item, split=split: tfds_place(split, str(int(item.name.partition("/")[2]))))
        assert [item.labels[0] for item in items[:12]] == first


def test_pieces_are_taken_from_their_splits_in_order(tmp_path):
    all_entries = entries(train=20, test=10)
    made = divided(small(), all_entries, tmp_path)
    order = {
        split: sorted((str(n) for n in range(count)), key=lambda key, split=split: tfds_place(split, key))
        for split, count in (("train", 20), ("test", 10))
    }
    by_split = {name: [entry.name for entry, split in made if split == name] for name in PARTS}
    assert by_split["train"] == [f"train/{n}" for n in order["train"][:8]] + [f"test/{n}" for n in order["test"][:2]]
    assert by_split["test"] == [f"test/{n}" for n in order["test"][5:]]
    assert divided(small(), all_entries[::-1], tmp_path) == made, "the order of the files is nothing"


def test_a_list_fixes_a_split_and_the_others_leave_it_out(tmp_path):
    all_entries = entries(train=20, test=10)
    free = [entry.name for entry, split in divided(small(), all_entries, tmp_path) if split == "test"]
    fixed = [f"train/{n}" for n in range(10)]
    (tmp_path / "vtab-svhn.train.txt").write_text("\n".join(fixed) + "\n")
    made = divided(small(), all_entries, tmp_path)
    assert [entry.name for entry, split in made if split == "train"] == fixed
    assert [entry.name for entry, split in made if split == "test"] == free
    (tmp_path / "vtab-svhn.train.txt").write_text("\n".join([*fixed[:9], free[0]]))
    with pytest.raises(UsageError, match=r"test has 4 images left, officially 5.*Fix it too, by vtab-svhn\.test\.txt"):
        divided(small(), all_entries, tmp_path)


@pytest.mark.parametrize(
    ("lines", "told"),
    [(["train/99"] * 10, "10 of its 10 lines name no image: 'train/99'"), (["train/1"] * 10, "names 9 images twice"),
     (["train/1", "train/2"], "train has 2 images left, officially 10")],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_refused(tmp_path, lines, told):
    (tmp_path / "vtab-svhn.train.txt").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=told):
        divided(small(), entries(train=20, test=10), tmp_path)


def test_a_listing_says_that_a_list_fixed_it(tmp_path, monkeypatch):
    write_mnist(tmp_path, 20, 10)
    source = official(monkeypatch, "mnist", tmp_path, {"train": 20, "test": 10}, parts=PARTS)
    (tmp_path / "mnist.train.txt").write_text("\n".join(f"train/{n:06d}" for n in range(10)))
    assert "train is what mnist.train.txt lists" in source.listing().notes
    assert sum(split == "train" for split, _ in found_in(source).values()) == 10
