"""Reading and ingesting on S3 while it fails in every way: the undisturbed result, or the exit code that is meant."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inprocess import CollectedEvents, make_context
from photos import encoded, ingest, photo_folder, picture
from tars import tars

from vitpipe.infra.errors import IntegrityError, StageError, StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.contract import Inputs
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.reader_watch import ReaderWatch
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run
from vitpipe.stages.record import load_artifact

pytestmark = pytest.mark.s3

PASSING = {
    "late": {}, "status": {"status": 503, "times": 3}, "stall": {}, "drip": {"pace_s": 0.1}, "refused": {}, "lost": {},
    "short": {}, "cut": {}, "xml": {}, "flip": {},
}  # fmt: skip
PUTS = (
    ("lost", "train-000000.tar"), ("status", "train-000001.tar"), ("stall", "train-000002.tar"),
    ("lost", "train-000000.index"), ("xml", "manifest.json"), ("flip_up", "train-000001.index"),
)  # fmt: skip
TOO_MANY = {"status": 429, "times": 3}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Three shards of four images, on this disk."""
    folder = tmp_path_factory.mktemp("local")
    root = photo_folder(folder / "photos", per_class=4)
    return ingest(folder, {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 4})


@pytest.fixture
def shards(local, s3_uri):
    """The same in a bucket."""
    store = open_store(f"{s3_uri}/test/shards")
    folder = Path(local.uri.removeprefix("file://"))
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.upload(file, file.relative_to(folder).as_posix())
    return load_artifact(store.uri)


def everything(shards, cache):
    split = Split(shards, "train", cache)
    return [split.pixels(number).tobytes() for number in range(split.num_images)]


@pytest.mark.parametrize("room", [None, 0], ids=["cached", "image by image"])
def test_reading_survives_every_passing_fault(local, shards, proxy, tmp_path, retries, room):
    wanted = everything(local, tmp_path / "local")
    for number, (name, fault) in enumerate([*PASSING.items(), ("status", TOO_MANY)]):
        del retries[:]
        proxy.plan(name, method="GET", path="train-000001.tar", **fault)
        assert everything(shards, ShardCache(tmp_path / f"{number}", room)) == wanted, name
        assert proxy.faults.pop().times == 0, f"{name} never came"
        assert (len(retries) >= fault.get("times", 1)) == (name != "late"), name


def lost(shards, proxy):
    shards.store().delete(shards.file("train-000001.tar").at)


def replaced(shards, proxy):
    shards.store().write(shards.file("train-000001.tar").at, b"x" * shards.file("train-000001.tar").bytes)


def forbidden(shards, proxy):
    proxy.plan("status", status=403, method="GET", path="train-000001.tar", times=1000)


def gone_dark(shards, proxy):
    proxy.plan("refused", method="GET", path="train-000001.tar", times=1000)


@pytest.mark.parametrize("room", [None, 0], ids=["cached", "image by image"])
@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        (lost, StorageError, 7),
        (replaced, IntegrityError, 8),
        (forbidden, StorageError, 7),
        (gone_dark, StorageError, 7),
    ],
)
def test_what_does_not_pass_is_an_error_that_names_the_shard(
    shards, proxy, tmp_path, monkeypatch, fault, error, code, room
):
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "1")
    fault(shards, proxy)
    with pytest.raises(error, match=r"train-000001\.tar") as caught:
        everything(shards, ShardCache(tmp_path / "cache", room))
    assert caught.value.code == code


def test_a_slow_shard_is_a_wait_that_is_counted_and_named(shards, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr("vitpipe.stages.images.reader_watch.LONG_S", 0.3)
    waits = []

    class Doors:
        def inc(self, name, amount=1.0, **labels):
            waits.append((name, amount))

    events = CollectedEvents(tmp_path / "events.jsonl")
    proxy.plan("late", method="GET", path="train-000001.tar", pace_s=0.4)
    everything(shards, ShardCache(tmp_path / "cache", None, ReaderWatch(Doors(), events)))
    assert sum(amount for name, amount in waits if name == "shard_wait_seconds_total") >= 0.4
    (note,) = [text for text in events.of("note") if "train-000001.tar" in text]
    assert note.startswith("a reader waited")


@pytest.fixture
def photos_on_s3(s3_uri, tmp_path):
    root = photo_folder(tmp_path / "photos", per_class=4)
    store = open_store(f"{s3_uri}/photos")
    for path in sorted(root.rglob("*.png")):
        store.upload(path, path.relative_to(root).as_posix())
    return store


def ingested(tmp_path, source, out=None):
    """Run the stage, its output on S3 or here; the artifact and what it wrote."""
    source = {"kind": "folder", "root": source} if isinstance(source, str) else source
    config = IngestConfig.model_validate({"source": source, "images_per_shard": 4})
    ctx = make_context(tmp_path, "shards" if out else "here", IngestResources())
    if out:
        node = open_store(out)
        ctx = replace(ctx, out=replace(ctx.out, node=node))
    made = run(config, Inputs({}), ctx)
    return made, {file.path: ctx.out.node.read(file.at) for file in made.files}


def test_ingesting_survives_every_passing_fault_at_once(photos_on_s3, proxy, s3_uri, tmp_path, retries):
    _, wanted = ingested(tmp_path, str(tmp_path / "photos"))
    names = [entry.path for entry in photos_on_s3.list()]
    for name, (kind, fault) in zip(names, [*PASSING.items(), ("status", TOO_MANY)], strict=False):
        proxy.plan(kind, method="GET", path=name, **fault)
    for kind, path in PUTS:
        proxy.plan(kind, method="PUT", path=path)
    made, found = ingested(tmp_path, photos_on_s3.uri, f"{s3_uri}/out/shards")
    assert found == wanted and all(fault.times == 0 for fault in proxy.faults)
    assert len(retries) >= 14 and made.metrics["quarantined"] == 0


def test_a_source_that_refuses_is_an_error_and_one_that_lost_an_image_says_which(
    photos_on_s3, proxy, tmp_path, monkeypatch
):
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "2")
    gone = "class-1/002.png"
    proxy.plan("status", status=404, method="GET", path=gone, times=1000)
    made, found = ingested(tmp_path, photos_on_s3.uri)
    assert made.metrics["quarantined"] == 1 and gone.encode() in found["quarantine.jsonl"]
    proxy.plan("status", status=403, method="GET", path="class-2", times=1000)
    with pytest.raises(StorageError, match="403") as caught:
        ingested(tmp_path / "again", photos_on_s3.uri)
    assert caught.value.code == 7


def test_an_object_replaced_while_it_is_ingested_is_told(photos_on_s3, proxy, tmp_path, monkeypatch):
    choose = run_module.choose

    def replaced_meanwhile(*args):
        photos_on_s3.write("class-0/001.png", encoded(picture(99), "PNG"))
        return choose(*args)

    monkeypatch.setattr(run_module, "choose", replaced_meanwhile)
    with pytest.raises(StageError, match=r"class-0/001\.png.*changed while it was ingested"):
        ingested(tmp_path, photos_on_s3.uri)


def test_ingesting_tars_survives_every_passing_fault(proxy, s3_uri, tmp_path, retries):
    folder, store = tars(tmp_path / "in"), open_store(f"{s3_uri}/tars")
    names = [path.name for path in sorted(folder.iterdir())]
    for name in names:
        store.upload(folder / name, name)
    source = {"kind": "webdataset", "classes": 3, "urls": [f"{store.uri}/{name}" for name in names]}
    _, wanted = ingested(tmp_path, source)
    for number, (fault, settings) in enumerate([*PASSING.items(), ("status", TOO_MANY)]):
        proxy.plan(fault, method="GET", path=f"tars/{names[number % len(names)]}", **settings)
    made, found = ingested(tmp_path / "again", source)
    assert found == wanted and made.metrics["quarantined"] == 0
    assert all(fault.times == 0 for fault in proxy.faults), proxy.faults
    assert len(retries) >= 10
    proxy.plan("status", status=403, method="GET", path=f"tars/{names[1]}", times=1000)
    with pytest.raises(StorageError, match="403") as caught:
        ingested(tmp_path / "refused", source)
    assert caught.value.code == 7


@pytest.fixture
def tables(s3_uri, tmp_path):
    """Three parquet files of ten rows in row groups of four, here and in a bucket."""
    store = open_store(f"{s3_uri}/tables")
    for number in range(3):
        images = [encoded(picture(10 * number + row), "JPEG") for row in range(10)]
        table = pa.table({"image": pa.array(images), "label": pa.array([row % 3 for row in range(10)])})
        path = tmp_path / f"tables/in-{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path, row_group_size=4, write_page_checksum=True)
        store.upload(path, path.name)
    return store


def parquet(urls):
    return {"kind": "parquet", "classes": 3, "urls": urls}


def test_ingesting_parquet_survives_every_passing_fault(tables, proxy, tmp_path, retries):
    _, wanted = ingested(tmp_path, parquet(str(tmp_path / "tables")))
    for number, (fault, settings) in enumerate([*PASSING.items(), ("status", TOO_MANY)]):
        proxy.plan(fault, method="GET", path=f"in-{number % 3}.parquet", **settings)
    made, found = ingested(tmp_path / "again", parquet(f"{tables.uri}/in-{{0..2}}.parquet"))
    assert found == wanted and made.metrics["quarantined"] == 0
    assert all(fault.times == 0 for fault in proxy.faults), proxy.faults
    assert len(retries) >= 10
    proxy.plan("status", status=403, method="GET", path="in-1.parquet", times=1000)
    with pytest.raises(StorageError, match="403") as caught:
        ingested(tmp_path / "refused", parquet(tables.uri))
    assert caught.value.code == 7


@pytest.mark.parametrize("where", ["here", "in a bucket"])
@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_a_file_replaced_after_it_was_listed_is_not_mixed_with_its_labels(
    tables, s3_uri, tmp_path, monkeypatch, kind, where
):
    """Sound images under the labels of others: nothing but the version tells."""
    store, ending = (tables, "parquet") if kind == "parquet" else (open_store(f"{s3_uri}/tars"), "tar")
    if kind == "webdataset":
        tars(tmp_path / "in")
        for path in (tmp_path / "in").iterdir():
            store.upload(path, path.name)
    if where == "here":
        store = open_store(f"file://{tmp_path / ('tables' if kind == 'parquet' else 'in')}")
    names = sorted(entry.path for entry in store.list() if entry.path.endswith(ending))
    list_source = run_module.list_source

    def replaced_meanwhile(*args):
        listing = list_source(*args)
        store.write(names[0], store.read(names[1]))
        return listing

    monkeypatch.setattr(run_module, "list_source", replaced_meanwhile)
    source = {"kind": kind, "classes": 3, "urls": f"{store.uri}/*.{ending}"}
    with pytest.raises(IntegrityError, match=rf"{names[0]}: the object was replaced while it was read"):
        ingested(tmp_path, source)
