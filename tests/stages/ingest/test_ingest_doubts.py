"""What an ingest's estimate doubts: one class, a class an image, a split without images, splits read as one set."""

import json
from pathlib import Path
from typing import Any

import pytest
from photos import encoded, photo_folder, picture, write
from tars import samples, tar
from test_ingest_parquet import parquet

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate

ROOT = Path(__file__).parents[3]


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


def test_a_split_that_others_call_otherwise_is_told(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "in", classes=2, per_class=10)
    assert "'validation' is not looked for by that name: call it 'val'" in notes(
        folder(root), splits={"train": 0.8, "validation": 0.2}
    )
    assert notes(folder(root), splits={"train": 0.8, "val": 0.1, "minival": 0.1}) == ""


def test_files_of_several_splits_in_one_set_are_told_unless_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        parquet(tmp_path / f"data/{name}.parquet", [encoded(picture(1), "JPEG")] * 4, [0, 1, 0, 1])
    for urls in ("data", "data/*.parquet"):
        found = notes({"kind": "parquet", "urls": str(tmp_path / urls)})
        assert "(test 1, train 1), and all are read as one set: name those of one" in found
    for urls in ("data/train-*", "data/{train,test}-00000-of-00001.parquet"):
        assert notes({"kind": "parquet", "urls": str(tmp_path / urls)}) == ""


def test_formats_that_are_not_read_are_told(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "in", classes=2, per_class=2)
    assert notes(folder(root)) == ""
    for name in ("class-0/IMG_1.HEIC", "class-1/IMG_2.heic", "class-1/a.tif"):
        write(root / name, b"ftypheic")
    assert "of 7 images 2 .heic, 1 .tif are, by their names, of a format that is not read" in notes(folder(root))
    labels = write(tmp_path / "labels.csv", b"path,label\nclass-0/IMG_1.HEIC,a\nclass-1/001.png,b\nclass-0/001.png,b\n")
    assert "of 3 images 1 .heic are" in notes(folder(root, labels=str(labels)))


def test_fewer_images_than_classes_are_told(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "in", classes=4, per_class=2)
    assert "3 images are fewer than the 4 classes" in notes(folder(root, limit=3))
    assert notes(folder(root, limit=4)) == ""


def test_a_source_of_another_kind_is_named(tmp_path: Path) -> None:
    photo_folder(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    tar(tmp_path / "tars/a.tar", samples(0, 2))
    write(tmp_path / "zips/a.zip", b"PK")
    asked = [
        ({"kind": "webdataset", "urls": str(tmp_path / "photos")}, "set `kind: folder` with `root`"),
        ({"kind": "parquet", "urls": str(tmp_path / "empty")}, "correct `urls`"),
        (folder(tmp_path / "tars"), "for its .tar files set `kind: webdataset` with `urls`"),
        (folder(tmp_path / "zips"), "unpack its archives first"),
        (folder(tmp_path / "empty"), "name a folder of images"),
    ]
    for source, do in asked:
        with pytest.raises(UsageError) as caught:
            notes(source)
        assert do in caught.value.do


def test_sets_that_are_made_here_are_not_doubted() -> None:
    """Glyphs and digits, in every config and preset."""
    seen = 0
    files = [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("pipeline/cli/presets/*.yaml")]
    for path in (file for file in files if "kind: glyphs" in file.read_text()):
        for node in load(path, env={}).graph.nodes.values():
            if isinstance(node.config, IngestConfig) and node.config.source.kind in ("glyphs", "digits"):
                found = estimate(node.config, IngestResources(), {}, Known()).notes
                assert not [note for note in found if not note.startswith("splits are cut")], path
                seen += 1
    assert seen > 1
