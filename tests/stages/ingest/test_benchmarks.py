"""Named data sets from their official files: checked, counted, ingested as they are cut; one real, from Debian."""

import gzip
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
from inprocess import make_context
from official_files import damage, found_in, official, pixels, write_cifar10, write_idx, write_images, write_mnist
from tf_records import write_dmlab

from vitpipe.infra.errors import IntegrityError, StageError, UsageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Known
from vitpipe.stages.ingest.benchmarks.array_files import read_idx
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, SplitSlice
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.run import run
from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def config_of(name: str, root: Path, **source: object) -> IngestConfig:
    return IngestConfig.model_validate({"source": {"kind": "benchmark", "name": name, "root": str(root), **source}})


def test_ingested_with_its_own_splits_and_every_image(tmp_path, monkeypatch):
    root = tmp_path / "files"
    root.mkdir()
    write_mnist(root, 20, 10)
    images = read_idx(root / "t10k-images-idx3-ubyte.gz").copy()
    images[1] = images[0]
    write_idx(root / "t10k-images-idx3-ubyte.gz", images)
    official(monkeypatch, "mnist", root, {"train": 20, "test": 10})
    data = run(config_of("mnist", root), Inputs({}), make_context(tmp_path, "shards", IngestResources()))
    assert data.splits == {"train": 20, "test": 10}, "an official test set keeps its equal images"
    guess = estimate(config_of("mnist", root), IngestResources(), {}, Known())
    assert guess.splits == {"train": 20, "test": 10} and guess.num_classes == 10
    part = run(config_of("mnist", root, limit=9), Inputs({}), make_context(tmp_path, "part", IngestResources()))
    assert sum(part.splits.values()) == 9


def test_a_test_split_that_lost_an_image_is_refused_a_training_split_is_not(tmp_path, monkeypatch):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "trainval.txt").write_text("a_1 1 1 1\nb_1 2 1 1\nb_2 2 1 1\n")
    (tmp_path / "annotations" / "test.txt").write_text("a_2 1 1 1\nb_3 2 1 1\n")
    write_images(tmp_path, *(f"images/{name}.jpg" for name in ("a_1", "a_2", "b_1", "b_2", "b_3")))
    official(monkeypatch, "oxford_iiit_pet", tmp_path, {"train": 3, "test": 2}, num_classes=2)
    damage(tmp_path / "images" / "b_2.jpg", lambda data: data[:60])
    config = config_of("oxford_iiit_pet", tmp_path)
    data = run(config, Inputs({}), make_context(tmp_path, "train", IngestResources()))
    assert data.splits == {"train": 2, "test": 2} and data.metrics["quarantined"] == 1
    damage(tmp_path / "images" / "b_3.jpg", lambda data: data[:60])
    with pytest.raises(StageError, match=r"1 images smaller than promised: 'images/b_3\.jpg'"):
        run(config, Inputs({}), make_context(tmp_path, "test", IngestResources()))


def test_config_knows_the_names():
    with pytest.raises(ValueError, match="unknown benchmark 'cifar-10', the nearest is 'cifar10'"):
        IngestConfig.model_validate({"source": {"kind": "benchmark", "name": "cifar-10", "root": "/data"}})
    with pytest.raises(ValueError, match="unknown benchmark 'clevr'"):
        IngestConfig.model_validate({"source": {"kind": "benchmark", "name": "clevr", "root": "/data"}})
    with pytest.raises(ValueError, match="official belongs to a benchmark"):
        IngestConfig.model_validate({"source": {"kind": "digits"}, "splits": "official"})


def test_missing_altered_and_short_files_are_told_apart(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"4 of 4 official files are missing: 'train-images"):
        BenchmarkFiles("mnist", str(tmp_path)).listing()
    write_mnist(tmp_path, 20, 10)
    with pytest.raises(IntegrityError, match=r"train-images.* bytes, officially 9912422 with sha256:440fcabf73cc"):
        BenchmarkFiles("mnist", str(tmp_path)).listing()
    with pytest.raises(IntegrityError, match="of 10: train has 1 fewer than promised"):
        official(monkeypatch, "mnist", tmp_path, {"train": 21, "test": 10}).listing()
    with pytest.raises(IntegrityError, match="test has 2 more than promised"):
        official(monkeypatch, "mnist", tmp_path, {"train": 20, "test": 8}).listing()
    source = official(monkeypatch, "mnist", tmp_path, {"train": 20, "test": 10})
    assert len(source.listing().items) == 30, "the same files, rightly described, pass"
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    official_md5 = hashlib.md5(labels.read_bytes()).hexdigest()
    flipped = gzip.decompress(labels.read_bytes())[:-1] + b"\7"
    labels.write_bytes(gzip.compress(flipped))
    with pytest.raises(
        IntegrityError, match=rf"t10k-labels.*official is md5:{official_md5}.*damaged or another version"
    ):
        source.listing()
    labels.write_bytes(gzip.compress(flipped[:-1]))
    with pytest.raises(IntegrityError, match="no idx file of bytes"):
        read_idx(labels)


def test_the_right_length_with_other_bytes_is_another_file(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bytes(9_912_422))
    for file in REGISTRY["mnist"].files[1:]:
        (tmp_path / file.path).write_bytes(b"")
    with pytest.raises(
        IntegrityError, match=r"it has md5:[0-9a-f]{32} and sha256:[0-9a-f]{64}, official is sha256:440fc"
    ):
        BenchmarkFiles("mnist", str(tmp_path)).listing()


def test_a_data_set_of_one_class_is_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path, 20, 10)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.full(20, 3, np.uint8))
    with pytest.raises(IntegrityError, match="its 20 images have one label alone"):
        official(monkeypatch, "mnist", tmp_path, {"train": 20, "test": 10}).listing()


def test_another_number_of_classes_is_another_version(tmp_path, monkeypatch):
    write_cifar10(tmp_path, 10)
    source = official(monkeypatch, "cifar10", tmp_path, {"train": 50, "test": 10}, num_classes=9)
    with pytest.raises(IntegrityError, match=r"of 10 classes, officially .* of 9: it is another version"):
        source.listing()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(tmp_path):
    source = BenchmarkFiles("fashion-mnist", str(DEBIAN))
    listing = source.listing()
    assert len(listing.items) == 70_000 and listing.classes[9] == "Ankle boot"
    first = next(item for item in listing.items if item.name == "train/000000")
    assert first.labels == (9,) and pixels(source.read(first)).shape == (28, 28)
    for split, each in (("train", 6_000), ("test", 1_000)):
        labels = [item.labels[0] for item in listing.items if item.split == split]
        assert np.bincount(labels).tolist() == [each] * 10, "as its authors say"
    for file in DEBIAN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    labels_file = tmp_path / "train-labels-idx1-ubyte.gz"
    content = gzip.decompress(labels_file.read_bytes())
    labels_file.write_bytes(gzip.compress(content[:100] + bytes([(content[100] + 1) % 10]) + content[101:]))
    with pytest.raises(IntegrityError, match="train-labels-idx1"):
        BenchmarkFiles("fashion-mnist", str(tmp_path)).listing()


def test_a_listing_tells_licence_and_what_is_unverified(tmp_path, monkeypatch):
    write_mnist(tmp_path, 20, 10)
    notes = official(monkeypatch, "mnist", tmp_path, {"train": 20, "test": 10}, unverified="a thing").listing().notes
    assert notes == ("MNIST: licence CC BY-SA 3.0", "unverified: a thing")
    assert found_in(BenchmarkFiles("mnist", str(tmp_path)))["train/000013"] == ("train", (3,))


def test_an_estimate_counts_what_the_shards_will_hold():
    guess = estimate(config_of("vtab-clevr-count", Path("/nowhere")), IngestResources(), {}, Known())
    assert guess.splits == {"train": 1000, "test": 15_000} and (guess.images, guess.num_classes) == (16_000, 8)


def test_records_are_cut_as_vtab_cuts_them_and_reach_the_shards_whole(tmp_path, monkeypatch):
    kept = write_dmlab(tmp_path, 12)
    parts = {"train": (SplitSlice("train", 0, 8), SplitSlice("validation", 0, 2)), "test": (SplitSlice("test"),)}
    counts = {"train": 24, "validation": 12, "test": 12}
    source = official(monkeypatch, "vtab-dmlab", tmp_path, counts, parts=parts)
    data = run(config_of("vtab-dmlab", tmp_path), Inputs({}), make_context(tmp_path, "shards", IngestResources()))
    assert data.splits == {"train": 10, "test": 12} and data.num_classes == 6
    wanted = {hashlib.sha256(kept[name.partition("/")[2]]).hexdigest() for name in found_in(source)}
    held = set()
    for path in (tmp_path / "store").rglob("*.tar"):
        with tarfile.open(path) as archive:
            images = [member for member in archive if member.name.endswith(".jpg")]
            held |= {hashlib.sha256(archive.extractfile(member).read()).hexdigest() for member in images}
    assert held == wanted and len(wanted) == 22
