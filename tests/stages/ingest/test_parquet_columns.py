"""Parquet as pandas, Spark and others write it: other types, columns within columns, images that are only named."""

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photos import encoded, ingest, picture, write
from test_ingest_webdataset import labelled, rows

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest.sources.parquet import ParquetSource

JPEGS = [encoded(picture(number), "JPEG") for number in range(2)]
DICTIONARY = pa.array(JPEGS, pa.binary()).dictionary_encode()


def of_struct(data, path):
    return pa.struct([("bytes", data), ("path", path)])


STRUCT = of_struct(pa.binary(), pa.string())
NAMED = pa.array([{"path": "a/0.jpg"}, {"path": "./a//1.jpg"}], pa.struct([("path", pa.string())]))
NAMES = ["ant", "bee", "cat"]


def parquet(tmp_path, *columns, metadata=None):
    """A file of these (name, values), beside the images that rows may name."""
    for number, data in enumerate(JPEGS):
        write(tmp_path / f"in/a/{number}.jpg", data)
    table = pa.Table.from_arrays([pa.array(values) for _, values in columns], names=[name for name, _ in columns])
    features = {b"huggingface": json.dumps({"info": {"features": metadata}}).encode()} if metadata else None
    pq.write_table(table.replace_schema_metadata(features), tmp_path / "in/a.parquet")
    return {"kind": "parquet", "urls": str(tmp_path / "in/a.parquet")}


def seen(tmp_path, source):
    """Classes by row, of the images that are read."""
    shards = ingest(tmp_path, {"source": source, "bad_image_budget": 2})
    classes = load_manifest(shards).classes
    return {
        int(name[-9:]): tuple(classes[one] for one in its) for name, its in labelled(shards, tmp_path / "c").items()
    }


@pytest.mark.parametrize(
    "images",
    [
        pa.array(JPEGS, pa.binary_view()),
        DICTIONARY,
        pa.array([{"bytes": data, "path": None} for data in JPEGS], of_struct(pa.binary_view(), pa.string_view())),
        NAMED,
        pa.array([{"bytes": None, "path": "a/0.jpg"}, {"bytes": JPEGS[1], "path": "gone.jpg"}], STRUCT),
        pa.array([{"bytes": None, "path": f"a/{n}.jpg"} for n in range(2)], of_struct(pa.null(), pa.string())),
        pa.array(["a/0.jpg", "a/1.jpg"]),
        pa.array(["a/0.jpg", "a/1.jpg"], pa.string_view()),
        pa.array(["a/0.jpg", "a/1.jpg"]).dictionary_encode(),
    ],
    ids=lambda images: str(images.type),
)  # fmt: skip
def test_images_of_every_type(tmp_path, images):
    assert seen(tmp_path, parquet(tmp_path, ("image", images), ("label", ["x", "y"]))) == {0: ("x",), 1: ("y",)}


@pytest.mark.parametrize("path", ["{folder}/a/0.jpg", "file://{folder}/a/0.jpg"])
def test_an_absolute_path_names_a_file_anywhere_on_this_machine(tmp_path, path):
    elsewhere = write(tmp_path / "elsewhere/a/0.jpg", JPEGS[0]).parents[1]
    images = [path.format(folder=elsewhere), "a/1.jpg"]
    assert seen(tmp_path, parquet(tmp_path, ("image", images), ("label", ["x", "y"]))) == {0: ("x",), 1: ("y",)}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/gone.jpg", "and no such file is in"),
        ("a", "which cannot be read: Is a directory"),
        ("../secret.jpg", "which leads out of the folder of the table"),
        ("https://example.org/1.jpg", "and nothing is fetched from there"),
        ("a\0b", "which is no name of a file"),
        ("x" * 5000, "which is no name of a file"),
    ],
)
def test_what_a_row_names_and_is_not_there_is_set_aside(tmp_path, path, reason):
    write(tmp_path / "secret.jpg", JPEGS[1])
    source = parquet(tmp_path, ("image", ["a/0.jpg", path]), ("label", ["x", "y"]))
    shards = ingest(tmp_path, {"source": source})
    (bad,) = rows(shards)
    assert shards.splits == {"train": 1} and reason in bad["reason"] and len(bad["reason"]) < 500


CLASS_LABEL = {"names": NAMES, "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("label", "values", "metadata", "wanted"),
    [
        ("label", pa.array([2.0, 1.0]), None, ["2", "1"]),
        ("label", pa.array([2.0, None]), {"label": CLASS_LABEL}, ["cat"]),
        ("label", pa.array([Decimal("2"), Decimal("1.00")]), None, ["2", "1"]),
        ("label", pa.array([2.5, 1.0]), None, [None, "1"]),
        ("label", pa.array([b"cat", b"ant"]), None, ["cat", "ant"]),
        ("label", pa.array([b"\xff", b"ant"]), None, [None, "ant"]),
        ("label", pa.array(["cat", "ant"]).dictionary_encode(), None, ["cat", "ant"]),
        ("label", pa.array([2, 0]).dictionary_encode(), {"label": CLASS_LABEL}, ["cat", "ant"]),
        ("meta.label", pa.array([{"label": 2}, {"label": 0}]), {"meta": {"label": CLASS_LABEL}}, ["cat", "ant"]),
        ("meta.label", pa.array([{"label": "x"}, None]), None, ["x"]),
        ("meta.of.it", pa.array([{"of": {"it": 2.0}}, {"of": {"it": 0.0}}]), None, ["2", "0"]),
        ("meta.label", pa.array([{"label": [2, 0]}, {"label": [1]}]),
         {"meta": {"label": {"feature": CLASS_LABEL, "_type": "List"}}}, [("ant", "cat"), "bee"]),
        ("meta.label", pa.array([[{"label": 2}, {"label": 0}], [{"label": 1}]]),
         {"meta": {"feature": {"label": CLASS_LABEL}, "_type": "Sequence"}}, [("ant", "cat"), "bee"]),
    ],
)  # fmt: skip
def test_labels_of_every_type_and_place(tmp_path, label, values, metadata, wanted):
    name = label.partition(".")[0]
    source = parquet(tmp_path, ("image", DICTIONARY), (name, values), ("other", ["-1", "-1"]), metadata=metadata)
    found = seen(tmp_path, {**source, "label": label})
    assert found == {row: (one,) if isinstance(one, str) else one for row, one in enumerate(wanted) if one is not None}
    known = ParquetSource.model_validate({**source, "label": label}).open({}).known_classes()
    assert (known and known.names) == (tuple(NAMES) if metadata else None)


def test_a_name_with_a_dot_is_a_column_before_it_is_a_field(tmp_path):
    inner = pa.array([{"label": "wrong"}] * 2)
    source = parquet(tmp_path, ("image", DICTIONARY), ("meta", inner), ("meta.label", ["x", "y"]))
    assert seen(tmp_path, {**source, "label": "meta.label"}) == {0: ("x",), 1: ("y",)}


def test_an_image_within_a_column(tmp_path):
    kind = pa.struct([("image", STRUCT), ("label", pa.int64())])
    sample = pa.array([{"image": {"bytes": data, "path": None}, "label": 1 - n} for n, data in enumerate(JPEGS)], kind)
    source = parquet(tmp_path, ("sample", sample))
    assert seen(tmp_path, {**source, "image": "sample.image", "label": "sample.label"}) == {0: ("1",), 1: ("0",)}


@pytest.mark.parametrize(
    ("columns", "settings", "found"),
    [
        ([("image", DICTIONARY), ("label", [0, 1]), ("label", [1, 0])], {}, "columns 'label' of .*several columns"),
        ([("image", DICTIONARY), ("image", DICTIONARY), ("label", [0, 1])], {}, "columns 'image' of .*several columns"),
        ([("image", DICTIONARY), ("a", [{"b.c": 0}] * 2), ("a.b", [{"c": 0}] * 2)], {"label": "a.b.c"}, "several col"),
        ([("image", DICTIONARY), ("a", [{"name": 0}] * 2)], {"label": "a.label"}, "columns 'a.label' of .*a .struct"),
        ([("image", pa.array([[b""], [b""]])), ("label", [0, 1])], {}, "a row has a list of them, binary"),
        ([("image", [1.0, 2.0]), ("label", [0, 1])], {}, "it is double, neither bytes nor"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_meant_are_refused(tmp_path, columns, settings, found):
    source = parquet(tmp_path, *columns)
    with pytest.raises(UsageError, match=f"(?is){found}"):
        ingest(tmp_path, {"source": {**source, **settings}})


def test_two_other_columns_of_one_name_do_not_matter(tmp_path):
    source = parquet(tmp_path, ("image", DICTIONARY), ("x", [0, 1]), ("label", ["x", "y"]), ("x", [1, 2]))
    assert seen(tmp_path, source) == {0: ("x",), 1: ("y",)}
