"""Named data sets from files in their official layouts: written here as their formats ask, and one from Debian."""

import gzip
import hashlib
import io
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inprocess import make_context
from PIL import Image
from scipy.io import savemat

from infra.errors import IntegrityError, UsageError
from stages.contract import Inputs, Known
from stages.ingest import source_benchmark
from stages.ingest.benchmarks.arrays import read_idx, read_inert_pickle
from stages.ingest.benchmarks.registry import REGISTRY, Benchmark, OfficialFile
from stages.ingest.config import IngestConfig, IngestResources
from stages.ingest.estimate import estimate
from stages.ingest.run import run
from stages.ingest.source_benchmark import BenchmarkFiles

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(0)


def greys(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_mnist(root: Path, train: int, test: int) -> None:
    for prefix, count in (("train", train), ("t10k", test)):
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", greys(count, 28, 28))
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))


def old_pickle(path: Path, content: dict) -> None:
    """As Python 2 and the numpy of its day wrote it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_cifar10(root: Path, each: int) -> None:
    folder = root / "cifar-10-batches-py"
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        old_pickle(folder / name, {"data": greys(each, 3072), "labels": [n % 10 for n in range(each)]})
    old_pickle(folder / "batches.meta", {"label_names": [f"name {number}" for number in range(10)]})


def official(monkeypatch: pytest.MonkeyPatch, name: str, root: Path, **images: int) -> BenchmarkFiles:
    """The registry's entry with the digests of what stands in `root`, and other numbers of images."""
    known = REGISTRY[name]
    files = tuple(
        OfficialFile(
            file.path, tuple(f"md5:{hashlib.md5((root / file.path).read_bytes()).hexdigest()}" for _ in file.digests)
        )
        for file in known.files
    )
    classes = {"oxford_iiit_pet": 2, "oxford_flowers102": 3, "dtd": 2}.get(name, known.num_classes)
    monkeypatch.setitem(
        source_benchmark.REGISTRY, name, replace(known, files=files, images=images, num_classes=classes)
    )
    return BenchmarkFiles(name, str(root))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_idx(tmp_path, monkeypatch):
    write_mnist(tmp_path, 20, 10)
    source = official(monkeypatch, "mnist", tmp_path, train=20, test=10)
    listing = source.listing()
    assert [item.split for item in listing.items] == ["test"] * 10 + ["train"] * 20
    assert listing.classes == tuple("0123456789")
    train = read_idx(tmp_path / "train-images-idx3-ubyte.gz")
    item = next(item for item in listing.items if item.name == "train/000013")
    assert item.labels == (3,) and (pixels(source.read(item)) == train[13]).all()


def test_cifar(tmp_path, monkeypatch):
    write_cifar10(tmp_path, 4)
    source = official(monkeypatch, "cifar10", tmp_path, train=20, test=4)
    listing = source.listing()
    assert listing.classes[3] == "name 3"
    item = next(item for item in listing.items if item.name == "train/000005")  # the second of the second batch
    row = read_inert_pickle(tmp_path / "cifar-10-batches-py" / "data_batch_2")["data"][1]
    assert item.labels == (1,) and (pixels(source.read(item)) == row.reshape(3, 32, 32).transpose(1, 2, 0)).all()


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


def test_svhn(tmp_path, monkeypatch):
    kept = {}
    for split, count in (("train", 12), ("test", 11)):
        kept[split] = greys(count, 32, 32, 3)
        labels = np.array([[n % 10 or 10] for n in range(count)])
        savemat(tmp_path / f"{split}_32x32.mat", {"X": kept[split].transpose(1, 2, 3, 0), "y": labels})
    source = official(monkeypatch, "svhn", tmp_path, train=12, test=11)
    items = {item.name: item for item in source.listing().items}
    assert items["train/000010"].labels == (0,), "the digit 0 is stored as class 10"
    assert (pixels(source.read(items["test/000004"])) == kept["test"][4]).all()


def write_images(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(greys(1, 8, 8, 3)[0]).save(path)


def test_pets(tmp_path, monkeypatch):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "trainval.txt").write_text("# a comment\ngreat_dane_1 2 2 1\nBengal_7 1 1 1\n")
    (tmp_path / "annotations" / "test.txt").write_text("Bengal_9 1 1 1\n")
    write_images(tmp_path, "images/great_dane_1.jpg", "images/Bengal_7.jpg", "images/Bengal_9.jpg")
    source = official(monkeypatch, "oxford_iiit_pet", tmp_path, train=2, test=1)
    listing = source.listing()
    assert listing.classes == ("Bengal", "great dane")
    found = {item.name: (item.split, item.labels) for item in listing.items}
    assert found["images/great_dane_1.jpg"] == ("train", (1,)) and found["images/Bengal_9.jpg"] == ("test", (0,))
    assert source.read(listing.items[0]) == (tmp_path / listing.items[0].name).read_bytes(), "files pass as they are"
    (tmp_path / "images" / "Bengal_9.jpg").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 listed images are missing: 'images/Bengal_9\.jpg'"):
        source.listing()


def test_flowers(tmp_path, monkeypatch):
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 3, 2, 1]])})
    savemat(tmp_path / "setid.mat", {"trnid": [[4]], "valid": [[1]], "tstid": [[2, 3]]})
    write_images(tmp_path, *(f"jpg/image_{number:05d}.jpg" for number in range(1, 5)))
    source = official(monkeypatch, "oxford_flowers102", tmp_path, train=1, validation=1, test=2)
    found = {item.name: (item.split, item.labels) for item in source.listing().items}
    assert found["jpg/image_00002.jpg"] == ("test", (2,)) and found["jpg/image_00004.jpg"] == ("train", (0,))


def test_dtd(tmp_path, monkeypatch):
    lists = {"train1": "zigzag/a.jpg\nbanded/b.jpg\n", "val1": "banded/c.jpg\n", "test1": "zigzag/d.jpg\n"}
    (tmp_path / "labels").mkdir()
    for name, text in lists.items():
        (tmp_path / "labels" / f"{name}.txt").write_text(text)
    write_images(tmp_path, *(f"images/{line}" for text in lists.values() for line in text.split()))
    source = official(monkeypatch, "dtd", tmp_path, train=2, validation=1, test=1)
    listing = source.listing()
    assert listing.classes == ("banded", "zigzag")
    assert {item.name: item.split for item in listing.items}["images/banded/c.jpg"] == "validation"


def test_ingested_with_its_own_splits_and_every_image(tmp_path, monkeypatch):
    root = tmp_path / "files"
    root.mkdir()
    write_mnist(root, 20, 10)
    images = read_idx(root / "t10k-images-idx3-ubyte.gz").copy()
    images[1] = images[0]
    write_idx(root / "t10k-images-idx3-ubyte.gz", images)
    official(monkeypatch, "mnist", root, train=20, test=10)
    config = IngestConfig.model_validate({"source": {"kind": "benchmark", "name": "mnist", "root": str(root)}})
    data = run(config, Inputs({}), make_context(tmp_path, "shards", IngestResources()))
    assert data.splits == {"train": 20, "test": 10}, "an official test set keeps its equal images"
    guess = estimate(config, IngestResources(), {}, Known())
    assert guess.splits == {"train": 20, "test": 10} and guess.num_classes == 10


def test_config_knows_the_names():
    with pytest.raises(ValueError, match="unknown benchmark 'cifar-10', the nearest is 'cifar10'"):
        IngestConfig.model_validate({"source": {"kind": "benchmark", "name": "cifar-10", "root": "/data"}})
    with pytest.raises(ValueError, match="official belongs to a benchmark"):
        IngestConfig.model_validate({"source": {"kind": "digits"}, "splits": "official"})


def test_missing_altered_and_short_files_are_told_apart(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"4 of 4 official files are missing: 'train-images"):
        BenchmarkFiles("mnist", str(tmp_path)).listing()
    write_mnist(tmp_path, 20, 10)
    with pytest.raises(IntegrityError, match=r"train-images.*official is md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"):
        BenchmarkFiles("mnist", str(tmp_path)).listing()
    with pytest.raises(IntegrityError, match=r"'train': 20.*officially they are \{'train': 21, 'test': 10\}"):
        official(monkeypatch, "mnist", tmp_path, train=21, test=10).listing()
    cut = tmp_path / "t10k-labels-idx1-ubyte.gz"
    cut.write_bytes(gzip.compress(gzip.decompress(cut.read_bytes())[:-1]))
    with pytest.raises(IntegrityError, match="No idx file of bytes"):
        read_idx(cut)


@pytest.mark.parametrize("benchmark", REGISTRY.values(), ids=lambda benchmark: benchmark.name)
def test_every_entry_says_what_a_user_needs(benchmark: Benchmark):
    assert set(benchmark.images) >= {"train", "test"} and benchmark.obtain and benchmark.licence
    lengths = {"md5": 32, "content-sha256": 64}
    for file in benchmark.files:
        for digest in file.digests:
            kind, _, value = digest.partition(":")
            assert len(value) == lengths[kind] and set(value) <= set("0123456789abcdef"), file
    assert len({file.path for file in benchmark.files}) == len(benchmark.files)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(tmp_path):
    source = BenchmarkFiles("fashion-mnist", str(DEBIAN))
    listing = source.listing()
    assert len(listing.items) == 70_000 and listing.classes[9] == "Ankle boot"
    first = next(item for item in listing.items if item.name == "train/000000")
    assert first.labels == (9,) and pixels(source.read(first)).shape == (28, 28)
    for file in DEBIAN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    labels = gzip.decompress((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    flipped = labels[:100] + bytes([(labels[100] + 1) % 10]) + labels[101:]
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(flipped))
    with pytest.raises(IntegrityError, match="train-labels-idx1"):
        BenchmarkFiles("fashion-mnist", str(tmp_path)).listing()
