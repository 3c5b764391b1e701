"""Folders that a person can hardly mean as the config reads them: refused by a plan, with what would read them."""

from pathlib import Path
from typing import Any

import pytest
from photos import encoded, ingest, picture, write

from vitpipe.infra.errors import UsageError
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.sources.folder_layout import split_of


def tree(root: Path, *files: str) -> Path:
    for number, name in enumerate(files):
        write(root / f"{name}.png", encoded(picture(number), "PNG"))
    return root


def config(root: Path, **more: Any) -> dict[str, Any]:
    return {"source": {"kind": "folder", "root": str(root)}, **more}


def told(root: Path, **more: Any) -> Estimate:
    return estimate(IngestConfig.model_validate(config(root, **more)), IngestResources(), {}, Known())


def of_splits(*splits: str, classes: str = "ab") -> list[str]:
    return [f"{split}/{name}/{number}" for split in splits for name in classes for number in (0, 1)]


AS_CLASSES = [
    (of_splits("train", "val", "test"), "its only folders are 'test', 'train', 'val'", "set `splits: folders`."),
    (of_splits("train"), "its only folders are 'train': splits, not classes", "set `splits: folders`."),
    (of_splits("train", "dev"), "'dev', 'train'", "set `splits: folders`, and rename 'dev' to 'val'."),
    (of_splits("Train", "Validation"), "", "set `splits: folders`, and rename 'Train' to 'train', and rename 'Valida"),
    (of_splits("train", "val", "more"), "among its folders are 'train', 'val'", "set `splits: folders`."),
    (
        ["train/1", "val/2"],
        "'train', 'val'",
        "put the images of each into a folder per class and set `splits: folders`",
    ),
    (
        ["photos/cat/1", "photos/dog/2"],
        "'photos', which holds 2 folders of images: 'cat', 'dog'",
        "ROOT/photos`, whose",
    ),
    (["a/b/cat/1", "a/b/dog/x/2"], "its only folder is 'a/b', which holds 2 folders", "set `root: ROOT/a/b`, whose"),
    (of_splits("set/train", "set/val"), "'train', 'val'", "set `root: ROOT/set` and `splits: folders`."),
]
AS_SPLITS = [
    (["cat/x/1", "dog/y/2"], "'cat', 'dog' would be splits, and none is named train", "leave `splits: folders` out"),
    (of_splits("fold0", "fold1"), "'fold0', 'fold1' would be splits", "rename these folders to train, val and test"),
    (of_splits("set/train", "set/test"), "'set', which holds 2 folders of images", "set `root: ROOT/set`."),
    (["cat/1", "dog/2"], r"2 images stand outside root/split/class/*", "leave `splits: folders` out: 'cat', 'dog' are"),
    (["train/1", "val/2"], "2 images stand outside", "put the images of each split into a folder per class"),
]


@pytest.mark.parametrize(
    ("files", "splits", "found", "do"),
    [(*one[:1], {"train": 1.0}, *one[1:]) for one in AS_CLASSES]
    + [(*one[:1], "folders", *one[1:]) for one in AS_SPLITS],
)
def test_folders_that_cannot_be_meant(tmp_path: Path, files: list[str], splits: Any, found: str, do: str) -> None:
    root = tree(tmp_path / "user", *files)
    with pytest.raises(UsageError) as planned:
        told(root, splits=splits)
    assert found in planned.value.found and do.replace("ROOT", str(root)) in planned.value.do + "."
    with pytest.raises(UsageError) as run:
        ingest(tmp_path, config(root, splits=splits))
    assert str(run.value) == str(planned.value), "a root on S3 is listed no sooner"


GOOD: list[tuple[list[str], Any]] = [
    (of_splits("cat", "dog"), {"train": 1.0}),
    (["cat/1", "cat/2", "dog/3", "dog/4"], {"train": 0.5, "val": 0.5}),
    (["train/1", "bus/2", "train/3", "bus/4"], {"train": 1.0}),
    (["train/x/1", "car/x/2", "train/3", "car/x/4"], {"train": 1.0}),
    (of_splits("train", "val", "test"), "folders"),
    (of_splits("test"), "folders"),
]


@pytest.mark.parametrize(("files", "splits"), GOOD)
def test_folders_that_are_right_are_not_spoken_of(tmp_path: Path, files: list[str], splits: Any) -> None:
    notes = told(tree(tmp_path / "user", *files), splits=splits).notes
    assert [note for note in notes if "cut by content" not in note] == []


def test_what_a_refused_folder_has_beside_its_images_changes_no_remedy(tmp_path: Path) -> None:
    root = tree(tmp_path / "user", *of_splits("train", "val"))
    (root / "annotations").mkdir()
    with pytest.raises(UsageError, match=r"(?i)set `splits: folders`"):
        told(root)


def test_splits_of_other_names_and_other_classes_are_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "user", *of_splits("train", "valid", "more"), "train/Cat/1", "valid/cat/2")
    notes = told(root, splits="folders").notes
    assert "the folder 'more' is read as a split, which no node takes unless it names it" in notes
    assert any("'valid' is a split of that name" in note and "look for 'val'" in note for note in notes)
    assert any("train and valid differ" in note and "'Cat' is nearly 'cat'" in note for note in notes)


def test_a_run_of_before_is_compared_and_not_refused(tmp_path: Path) -> None:
    source = IngestConfig.model_validate(config(tree(tmp_path / "user", "photos/cat/1", "photos/dog/2"))).source
    listing = source.list_unopened({"train": 1.0})
    assert listing is not None and listing.refusal is not None and len(listing.items) == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("Training_Set", "train"), ("val2017", "val"), ("validation", "val"), ("test-images", "test"),
     ("trainer", None), ("testudo", None), ("value", None), ("devon rex", None), ("dogs", None)],
)  # fmt: skip
def test_names_that_mean_a_split(name: str, split: str | None) -> None:
    assert split_of(name) == split
