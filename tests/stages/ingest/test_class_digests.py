"""Sources whose parts agree: their shards are the bytes that they were before parts were united by name."""

import pytest
from photos import ingest
from test_class_vocabulary import ANTS, CLS, TEXT, samples, tables, tree, with_names

GOLDEN = {
    "one table": (tables, {"a.parquet": (ANTS, [0, 2, 1, 1])}, {}),
    "tables alike": (
        tables,
        {f"{name}.parquet": (ANTS, [0, 1, 2, 1]) for name in ("train-0", "train-1", "test-0")},
        {},
    ),
    "the longer list first": (tables, {"a.parquet": (ANTS, [2, 0]), "b.parquet": (ANTS[:2], [1, 0])}, {}),
    "numbers": (tables, {"a.parquet": (None, [9, 2, 0]), "b.parquet": (None, [2, 5])}, {}),
    "words": (tables, {"a.parquet": (None, ["b", "a"]), "b.parquet": (None, ["c", "a"])}, {}),
    "several": (tables, {"a.parquet": (ANTS, [[0, 2], [1]]), "b.parquet": (ANTS, [[2], [1, 0]])}, {}),
    "a bad label": (tables, {"a.parquet": (ANTS, [0, 3, 1])}, {}),
    "named by the config": (tables, {"a.parquet": (None, [0, 2])}, {"class_names": ANTS}),
    "tars": (samples, {"a.tar": CLS, "b.tar": [("cls", b"07"), ("json", b'{"label": 3}')]}, {}),
    "tars of ten": (samples, {"a.tar": CLS}, {"classes": 10}),
    "tars of words": (samples, {"a.tar": TEXT, "b.tar": [("json", b'{"labels": ["cat", "eel"]}')]}, {}),
    "folders": (tree, ["ant", "Bee", "10", "9"], {}),
}
DIGESTS = {
    "one table": "0b4cfdddb4f4fe08",
    "tables alike": "e3af13f7aa61dfd9",
    "the longer list first": "e7f505a210fef5ed",
    "numbers": "baefc1dc3534499f",
    "words": "79da21ccec17bb21",
    "several": "6c6ff5ad0a0d6a60",
    "a bad label": "ed40eac7f28fd215",
    "named by the config": "7e437c531c21c47f",
    "tars": "64093dee4638d0c4",
    "tars of ten": "55a5a1fc9b06b74d",
    "tars of words": "9084674d88c7ecb9",
    "folders": "885b2df50ca11de6",
}


def golden(case, tmp_path):
    made, files, fields = GOLDEN[case]
    source = made(tmp_path / "in", files) | with_names(tmp_path, fields)
    shards = ingest(tmp_path, {"source": source, "images_per_shard": 3, "bad_image_budget": 5})
    return shards.manifest_sha256[:16]


@pytest.mark.parametrize("case", GOLDEN)
def test_what_agreed_is_what_it_always_was(case, tmp_path):
    """Digests of the whole manifest, taken before lists were united: shards of sources that agree stay the same."""
    assert golden(case, tmp_path) == DIGESTS[case]
