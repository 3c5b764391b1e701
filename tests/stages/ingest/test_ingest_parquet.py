"""Parquet files as Hugging Face writes them: images pass through, labels and names are taken from the schema."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photos import contents, encoded, indexes, ingest, picture, write
from test_ingest_determinism import Dying, Shuffled
from test_ingest_webdataset import labelled, rows

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.estimates import Known
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.lists import listed

NAMES = ["ant", "bee", "cat"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def feature(label):
    return {b"huggingface": json.dumps({"info": {"features": {"label": label}}}).encode()}


CLASS_LABEL = feature({"names": NAMES, "_type": "ClassLabel"})


def parquet(path, images, labels, metadata=CLASS_LABEL, kind=IMAGE, group=4, **columns):
    """One file; `images` are bytes or None."""
    if kind == IMAGE:
        images = [image if isinstance(image, dict) else {"bytes": image, "path": None} for image in images]
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=group, write_page_checksum=True)
    return path


def jpegs(first, count):
    return [encoded(picture(number), "JPEG") for number in range(first, first + count)]


@pytest.fixture
def folder(tmp_path):
    """Three files of ten rows in row groups of four."""
    for number in range(3):
        labels = [row % 3 for row in range(10)]
        parquet(tmp_path / f"in/train-{number:05d}-of-00003.parquet", jpegs(10 * number, 10), labels)
    return tmp_path / "in"


def config(urls, settings=None, **more):
    source = {"kind": "parquet", "urls": str(urls), **(settings or {})}
    return {"source": source, "bad_image_budget": 100, **more}


def test_rows_names_and_bytes_pass_through(folder, tmp_path):
    shards = ingest(tmp_path, config(folder, images_per_shard=7))
    assert load_manifest(shards).classes == tuple(NAMES) and not rows(shards)
    assert labelled(shards, tmp_path / "cache") == {
        f"train-{number:05d}-of-00003.parquet#{row:09d}": (row % 3,) for number in range(3) for row in range(10)
    }
    index = indexes(Split(shards, "train", tmp_path / "cache"))[1]
    number, row = int(index.source[3][6:11]), int(index.source[3][-2:])
    shard = contents(shards)["train-000001.tar"]
    assert shard[index.offset[3] : index.offset[3] + index.size[3]] == jpegs(10 * number + row, 1)[0]


@pytest.mark.parametrize(
    ("labels", "metadata", "classes", "expected"),
    [
        ([4, 2], None, ("2", "4"), [(1,), (0,)]),
        (["dog", "ant"], None, ("ant", "dog"), [(1,), (0,)]),
        ([[0, 2], [1]], feature({"feature": {"names": NAMES}, "_type": "List"}), tuple(NAMES), [(0, 2), (1,)]),
        ([[0, 2], [1]], feature([{"names": NAMES}]), tuple(NAMES), [(0, 2), (1,)]),
        ([["x", "y"], ["x"]], {b"huggingface": b"{"}, ("x", "y"), [(0, 1), (0,)]),
    ],
)
@pytest.mark.parametrize("kind", [IMAGE, pa.binary(), pa.large_binary()], ids=str)
def test_labels_of_every_kind(tmp_path, labels, metadata, classes, expected, kind):
    path = parquet(tmp_path / "a.parquet", jpegs(0, 2), labels, metadata, kind)
    shards = ingest(tmp_path, config(path))
    assert load_manifest(shards).classes == classes and shards.multi_label == isinstance(labels[0], list)
    assert [label for _, label in sorted(labelled(shards, tmp_path / "cache").items())] == expected


@pytest.mark.parametrize(
    ("image", "label", "reason"),
    [
        (None, 1, "the row has no image"),
        ({"bytes": None, "path": "a/b.jpg"}, 1, "the row has no bytes, only the path 'a/b.jpg'"),
        (b"\xff\xd8\xff no", 1, "JPEG"),
        (jpegs(900, 1)[0], -1, "it has the label -1, a number that is no class"),
        (jpegs(900, 1)[0], 3, "the label '3' is none of the 3 classes (0 to 2, or their names)"),
        (jpegs(900, 1)[0], None, "it has no label: None"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason(tmp_path, image, label, reason):
    path = parquet(tmp_path / "a.parquet", [*jpegs(0, 5), image], [0, 1, 2, 0, 1, label])
    shards = ingest(tmp_path, config(path))
    (found,) = rows(shards)
    assert found["source"] == "a.parquet#000000005" and reason in found["reason"]
    assert shards.splits == {"train": 5}
    with pytest.raises(StageError, match="1 are bad"):
        ingest(tmp_path, config(path, on_bad_image="fail"), node="strict")


def test_a_damaged_row_group_costs_its_rows_alone(folder, tmp_path):
    path = folder / "train-00001-of-00003.parquet"
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        pages = file.metadata.row_group(1).column(0)
    data[pages.dictionary_page_offset + 60 : pages.dictionary_page_offset + 120] = bytes(60)
    path.write_bytes(data)
    shards = ingest(tmp_path, config(folder))
    assert [row["source"] for row in rows(shards)] == [f"{path.name}#{row:09d}" for row in (4, 5, 6, 7)]
    assert all("row group 1 is damaged" in row["reason"] for row in rows(shards))
    assert shards.splits == {"train": 26}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"image": "img"}, r"columns 'img' of .*Its columns are image \(struct<.*label \(int64\)"),
        ({"image": "img", "label": "cls"}, r"columns 'img', 'cls' of"),
        ({"image": "label"}, r"it is int64, neither bytes nor"),
    ],
)
def test_missing_columns_are_told_with_those_there_are(folder, tmp_path, settings, found):
    with pytest.raises(UsageError, match=f"(?i){found}"):
        ingest(tmp_path, config(folder, settings))


@pytest.mark.parametrize("data", [b"", b"PAR1 not at all", b"x" * 5000])
def test_a_file_that_is_no_parquet_is_named(tmp_path, data):
    write(tmp_path / "a.parquet", data)
    with pytest.raises(UsageError, match=r"a\.parquet.*no parquet file"):
        ingest(tmp_path, config(tmp_path / "a.parquet"))


def test_workers_kills_places_and_the_spool_do_not_matter(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK_IMAGES", 7)
    asked = config(folder, images_per_shard=4, splits={"train": 0.7, "test": 0.3})
    plain = contents(ingest(tmp_path, asked, node="plain"))
    for seed in range(2):
        assert contents(ingest(tmp_path, asked, node=f"other-{seed}", cluster=Shuffled(seed))) == plain
    for after in (1, 4, 9, 11):
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path, asked, node=f"killed-{after}", cluster=Dying(after))
        resumed = ingest(tmp_path, asked, node=f"killed-{after}", attempt="a2", earlier=("a1",))
        assert contents(resumed) == plain
    monkeypatch.setattr("vitpipe.stages.ingest.look.spool.Spool.holds", lambda *args: False)
    moved = config(folder.rename(tmp_path / "moved"))["source"]
    assert contents(ingest(tmp_path, {**asked, "source": moved}, node="moved")) == plain


def test_an_estimate_knows_names_and_rows(folder):
    spec = IngestConfig.model_validate(config(folder))
    found = estimate(spec, IngestResources(), {}, Known())
    assert found.num_classes == 3 and found.images == pytest.approx(30, rel=0.1)


@pytest.mark.s3
def test_a_bucket_gives_what_the_same_folder_gives(s3_uri, folder, tmp_path):
    store = open_store(s3_uri)
    for path in folder.glob("*"):
        store.upload(path, f"in/{path.name}")
    here = contents(ingest(tmp_path, config(folder, images_per_shard=4), node="here"))
    there = config(f"{s3_uri}/in/*.parquet", images_per_shard=4)
    assert contents(ingest(tmp_path, there, node="there")) == here
    with pytest.raises(UsageError, match="no file of that name or pattern"):
        ingest(tmp_path, config(f"{s3_uri}/nothing/"), node="none")
