"""What an ingest's estimate doubts: one class, a class an image, a split without images, splits read as one set."""

import json
from pathlib import Path
from typing import Any

import pytest
from photos import encoded, photo_folder, picture
from tars import samples, tar
from test_ingest_parquet import parquet

from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate


def notes(source: dict[str, Any], **more: Any) -> str:
    found: Estimate = estimate(IngestConfig.model_validate({"source": source, **more}), IngestResources(), {}, Known())
    return "; ".join(note for note in found.notes if not note.startswith(("splits are cut", "reckoned from")))


def folder(root: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "root": str(root), **more}


def test_one_class_is_told_and_two_are_not(tmp_path: Path) -> None:
    assert "one class alone, 'class-0'" in notes(folder(photo_folder(tmp_path / "one", classes=1)))
    assert notes(folder(photo_folder(tmp_path / "two", classes=2))) == ""
    one = tar(tmp_path / "in/a.tar", samples(0, 4, classes=1))
    assert "one class alone" in notes({"kind": "webdataset", "urls": str(one), "classes": 1})
    assert notes({"kind": "webdataset", "urls": str(one), "classes": 2}) == ""


def test_a_label_that_names_the_image_is_told(tmp_path: Path) -> None:
    root, labels = photo_folder(tmp_path / "in", classes=2, per_class=2), tmp_path / "labels.csv"
    paths = [f"class-{at % 2}/00{at // 2}.png" for at in range(4)]
    for named, told in ((range(4), "each of the 4 images has a class of its own"), ((0, 1, 0, 1), "")):
        labels.write_text(
            "path,label\n" + "".join(f"{one},n{label}\n" for one, label in zip(paths, named, strict=True))
        )
        assert told in notes(folder(root, labels=str(labels))) if told else not notes(folder(root, labels=str(labels)))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_column_of_splits_that_nobody_reads_is_told(tmp_path: Path, form: str) -> None:
    root, labels = photo_folder(tmp_path / "in", classes=2, per_class=1), tmp_path / f"labels.{form}"
    for column, told in (("Split", f"the column 'Split' of {labels} is not read"), ("author", "")):
        rows = [{"path": f"class-{at}/000.png", "label": at % 1 or "ab"[at], column: "train"} for at in (0, 1)]
        lines = {
            "csv": [f"path,label,{column}", *(",".join(map(str, row.values())) for row in rows)],
            "jsonl": [json.dumps(row) for row in rows],
        }
        labels.write_text("\n".join(lines[form]))
        found = notes(folder(root, labels=str(labels)))
        assert (told in found) if told else "column" not in found


def test_a_split_that_gets_no_image_is_told(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "in", classes=2, per_class=10)
    assert "the split val is 0.02 of 20 images: none" in notes(folder(root), splits={"train": 0.98, "val": 0.02})
    assert notes(folder(root), splits={"train": 0.9, "val": 0.1}) == ""


def test_files_of_several_splits_in_one_set_are_told_unless_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        parquet(tmp_path / f"data/{name}.parquet", [encoded(picture(1), "JPEG")] * 4, [0, 1, 0, 1])
    for urls in ("data", "data/*.parquet"):
        found = notes({"kind": "parquet", "urls": str(tmp_path / urls)})
        assert "(test 1, train 1), and all are read as one set: name those of one" in found
    for urls in ("data/train-*", "data/{train,test}-00000-of-00001.parquet"):
        assert notes({"kind": "parquet", "urls": str(tmp_path / urls)}) == ""
