"""Labels from a file: one class or several, and each way such a file is wrong."""

import json
from itertools import islice

import pytest
import webdataset as wds
from photos import ingest, photo_folder

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.iterable import ShardStream
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.images.train import TrainImages


@pytest.fixture
def root(tmp_path):
    return photo_folder(tmp_path / "user", classes=2, per_class=3)


def config(root, labels):
    return {"source": {"kind": "folder", "root": str(root), "labels": str(labels)}}


def test_csv_of_one_class_each(root, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("path,label\nclass-0/000.png,10\nclass-0/001.png,9\nclass-1/000.png,10\n")
    shards = ingest(tmp_path, config(root, file))
    assert load_manifest(shards).classes == ("9", "10")
    assert sorted(Split(shards, "train", tmp_path / "cache").labels.tolist()) == [0, 1, 1]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the collector
def test_several_classes_each(root, tmp_path, form):
    rows = {"class-0/000.png": ["cat", "dog"], "class-0/001.png": ["dog"], "class-1/002.png": ["ant", "cat"]}
    file = tmp_path / f"labels.{form}"
    lines = {
        "csv": ["path,labels", *(f"{path},{';'.join(names)}" for path, names in rows.items())],
        "jsonl": [json.dumps({"path": path, "labels": names}) for path, names in rows.items()],
    }
    file.write_text("\n".join(lines[form]))
    shards = ingest(tmp_path, config(root, file))
    assert shards.multi_label and load_manifest(shards).classes == ("ant", "cat", "dog")
    tar = shards.fetch("train-000000.tar", tmp_path / "plain")
    plain = wds.WebDataset(str(tar), shardshuffle=False).decode("pil").to_tuple("jpg;jpeg;png;webp", "cls;json")
    assert sorted(label["labels"] for _, label in plain) == [[0, 1], [1, 2], [2]]
    stream = ShardStream(shards, 3, cache=tmp_path / "cache").samples().to_tuple("__key__", "png", "json")
    whole = wds.WebDataset(str(tar), shardshuffle=False).to_tuple("__key__", "png", "json")
    assert sorted(islice(stream, 3)) == sorted(whole)
    train = TrainImages(shards, "train", 12, AugmentSettings(), 0, tmp_path / "cache")
    labels = train.micro_batch(0, 3).labels
    assert labels.shape == (3, 3) and sorted(labels.sum(dim=1).tolist()) == [1, 2, 2]


def test_a_name_is_read_whole(root, tmp_path):
    """Commas and line ends in quotes, and what Unicode calls a line end, are of the name."""
    file = tmp_path / "labels.csv"
    file.write_bytes(
        b'path,label\r\nclass-0/000.png,"crane, bird"\r\n\r\nclass-0/001.png,"a\nb"\r\nclass-0/002.png,"c ""d"""\r\n'
    )
    shards = ingest(tmp_path, config(root, file), node="csv")
    assert load_manifest(shards).classes == ("a\nb", 'c "d"', "crane, bird")
    file = tmp_path / "labels.jsonl"
    rows = [{"path": "class-0/000.png", "label": "a\u2028b"}, {"path": "class-0/001.png", "label": "nan"}]
    file.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    shards = ingest(tmp_path, config(root, file), node="jsonl")
    assert load_manifest(shards).classes == ("a\u2028b", "nan")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.csv", "name,label\nx,1\n", "its columns are name, label"),
        ("a.csv", "path,label\nclass-0/000.png,\n", "line 2 has no label"),
        ("a.csv", "path,label\nclass-0/000.png,-1\n", "line 2 has the label '-1'"),
        ("a.csv", "path,label\nclass-0/000.png,1.0\n", "line 2 has the label '1.0'"),
        ("a.csv", "path,label\n,cat\n", "line 2 has no path"),
        ("a.csv", "path,label\n../../etc/passwd.png,cat\n", "1 of 1 listed images are not below"),
        ("a.csv", "path,label\nclass-0/000.png,a\nclass-0/000.png,b\n", "line 3: 'class-0/000.png' is listed twice"),
        ("a.csv", "path,label\n", "lists no images"),
        (
            "a.csv",
            "path,label\nx.png,cow\n0.png,crane, bird\n",
            "line 3 has 3 fields, and the file 2 columns.*in quotes",
        ),
        ("a.csv", "path,label,note\nx.png,cow\n", "line 2 has 2 fields, and the file 3 columns"),
        ("a.csv", 'path,label\nx.png,"cow\ny.png,cat\n', "ends in line 3 is no csv: unexpected end.*close each quote"),
        ("a.csv", f'path,label\nx.png,"cow\n{"y.png,cat" * 20_000}\n', "is no csv: field larger than"),
        ("a.csv", 'path,label\nx.png,"cow" boy\n', "ends in line 2 is no csv"),
        ("a.csv", "path,label,label\nx.png,cow,cat\n", "the columns 'label' stand in it more than once"),
        ("a.jsonl", '{"path": "class-0/000.png", "label": NaN}', "line 1 has no label: nan"),
        ("a.jsonl", '{"path": "class-0/000.png", "labels": ["x", -Infinity]}', "line 1 has no label: -inf"),
        ("a.jsonl", '{"path": "class-0/000.png", "label": -1}', "label -1"),
        ("a.jsonl", '{"path": "class-0/000.png", "labels": []}', "line 1 has no label"),
        ("a.jsonl", '{"path": "class-0/000.png", "label": true}', "line 1 has no label"),
        ("a.jsonl", "[1]", "line 1 is not an object"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.txt", "x", r"neither in \.csv, \.tsv nor in \.jsonl"),
    ],
)
def test_a_wrong_file_is_told_by_line(root, tmp_path, name, text, found):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError, match=f"(?i){found}"):
        ingest(tmp_path, config(root, file))


def test_a_missing_file_is_told(root, tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        ingest(tmp_path, config(root, tmp_path / "none.csv"))
