"""A row group is decompressed once, however many images it holds, through memory that its size does not change."""

import gc
import random
import shutil
from functools import partial
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inprocess import CollectedEvents, InProcessCluster
from photos import contents, ingest
from test_ingest_determinism import Dying
from test_ingest_parquet import config, jpegs, parquet

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.drift import look
from vitpipe.stages.ingest.listing import Item, Items
from vitpipe.stages.ingest.lists import listed, sort
from vitpipe.stages.ingest.look.scan import CHUNK_IMAGES
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.sources import row_groups
from vitpipe.stages.ingest.sources.opened import chunks
from vitpipe.stages.ingest.sources.parquet_columns import image_column
from vitpipe.stages.ingest.sources.parquet_rows import ParquetRows
from vitpipe.stages.ingest.sources.window import Window
from vitpipe.stages.record import read_record

MOST = 1.05
"""Bytes decompressed for each byte of the source."""
ROWS, ROW_BYTES = 16_384, 600
DICTIONARY_BYTES = 1_048_576
"""Of the first values of a column, as pyarrow begins each row group."""


class Counted:
    """What pyarrow gives of the column of images, in bytes, and what is read of files."""

    def __init__(self, monkeypatch):
        self.decompressed = self.read = 0
        batches, read = pq.ParquetFile.iter_batches, Window.read

        def counted(file, *args, **kwargs):
            for batch in batches(file, *args, **kwargs):
                self.decompressed += batch.nbytes
                yield batch

        def counted_read(window, start, length):
            data = read(window, start, length)
            self.read += len(data)
            return data

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
        monkeypatch.setattr(Window, "read", counted_read)


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """One row group of 16,384 rows of bytes that do not compress, each another."""
    data = np.random.default_rng(0).bytes(ROWS * ROW_BYTES)
    images = [data[start : start + ROW_BYTES] for start in range(0, len(data), ROW_BYTES)]
    return parquet(tmp_path_factory.mktemp("large") / "a.parquet", images, [0] * ROWS, group=ROWS), images


def opened(path, **more) -> ParquetRows:
    return IngestConfig.model_validate(config(path, **more)).source.open({"train": 1.0})


def as_before(source, items, most):
    """Tasks of so many images, whatever they are read from."""
    return [range(start, min(start + most, len(items))) for start in range(0, len(items), most)]


@pytest.mark.parametrize(("cut", "least", "most"), [(chunks, 0.99, MOST), (as_before, 16, 20)])
def test_bytes_decompressed_for_each_byte_of_the_source(large, counted, cut, least, most):
    """The negative control counts what tasks of `CHUNK_IMAGES` cost: N / 1024 passes over N rows, and a page more."""
    path, images = large
    source = opened(path)
    items = source.listing().items
    parts = cut(source, items, CHUNK_IMAGES)
    assert [row for rows in parts for row in rows] == list(range(ROWS))
    counted.decompressed = counted.read = 0
    found = [data for rows in parts for data in source.reads(items[rows.start : rows.stop])]
    assert found == images
    size = path.stat().st_size
    assert least <= counted.decompressed / size <= most and least <= counted.read / size <= most


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """JPEGs that differ, 60 rows in each of four row groups."""
    images = jpegs(0, 240)
    path = parquet(tmp_path_factory.mktemp("pictures") / "a.parquet", images, [n % 3 for n in range(240)], group=60)
    return path, sum(map(len, images))


def on_another_machine(fn, item):
    """Run a task that finds an empty local disk."""
    if hasattr(item, "spool"):
        shutil.rmtree(item.spool.folder, ignore_errors=True)
    return fn(item)


class OnOtherMachines(InProcessCluster):
    """No two tasks share a disk."""

    def fan(self, fn, items, **more):
        return super().fan(partial(on_another_machine, fn), items, **more)


def in_shards(path):
    return {**config(path, images_per_shard=12), "deduplicate": {"exact": False}}


@pytest.mark.parametrize("cluster", [InProcessCluster, OnOtherMachines])
def test_the_whole_ingest_decompresses_each_row_group_once(pictures, tmp_path, counted, cluster):
    """Twenty shards take their images from all row groups, on whatever machine."""
    path, size = pictures
    shards = ingest(tmp_path, in_shards(path), cluster=cluster())
    assert len(load_manifest(shards).shards) == 20
    assert size <= counted.decompressed <= MOST * size
    assert not list((tmp_path / "store").rglob("*.spool"))  # no longer needed


def test_a_restart_decompresses_nothing_again(pictures, tmp_path, counted):
    """Killed while shards are written: what was looked at is found in the store."""
    asked = in_shards(pictures[0])
    plain = contents(ingest(tmp_path, asked, node="plain"))
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, asked, node="killed", cluster=Dying(15))
    assert list((tmp_path / "store").rglob("*.spool"))
    counted.decompressed = 0
    resumed = ingest(tmp_path, asked, node="killed", attempt="a2", earlier=("a1",))
    assert contents(resumed) == plain and counted.decompressed == 0


def test_whoever_may_not_delete_is_told(pictures, tmp_path, monkeypatch):
    refused = StorageError("delete a/b", "403 Access Denied", "check the policy")
    monkeypatch.setattr(Spool, "clear", Mock(side_effect=refused))
    told = []
    monkeypatch.setattr(CollectedEvents, "emit", lambda self, kind, text: told.append(text))
    shards = ingest(tmp_path, in_shards(pictures[0]))
    assert len(load_manifest(shards).shards) == 20
    assert any("stays until `vitpipe gc`" in text and "403" in text for text in told)


def test_kept_on_a_machine_alone_each_shard_decompresses_all_of_them(pictures, tmp_path, counted, monkeypatch):
    """The negative control."""
    monkeypatch.setattr(run_module, "piece_of", lambda source: 0)
    path, size = pictures
    ingest(tmp_path, in_shards(path), cluster=OnOtherMachines())
    assert counted.decompressed > 10 * size


def test_memory_is_that_of_a_page_whatever_the_row_group_has(large, counted):
    """In bytes that pyarrow holds while rows are given; the negative control holds the row group."""
    path, images = large
    source = opened(path)
    items = source.listing().items
    page_bytes = 1024 * ROW_BYTES  # as pyarrow writes them: rows are counted after each 1,024
    bound = 3 * page_bytes + DICTIONARY_BYTES + row_groups.LOCAL_BUFFER_BYTES + 2 * row_groups.BATCH_ROWS * ROW_BYTES
    assert bound < ROWS * ROW_BYTES / 2

    def peak(of):
        gc.collect()
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() - before for _ in of)

    assert peak(source.reads(items)) <= bound
    with pq.ParquetFile(path) as file:
        assert peak(map(file.read_row_group, [0])) > bound
    assert len({len(image) for image in images}) == 1


def test_no_row_waits_in_listed_order_and_any_order_is_given(tmp_path):
    for name in "ab":
        parquet(tmp_path / f"in/{name}.parquet", jpegs(0, 10), [0] * 10)
    source = opened(tmp_path / "in")
    places = [(file, row // 4, row % 4) for file in range(2) for row in range(10)]
    taken = []

    def asked(schema, part):
        return image_column(schema, "image", part), lambda value: taken.append(1) or value["bytes"]

    given = row_groups.rows(source.files, places, asked)
    for number, data in enumerate(given, 1):
        assert len(taken) == number and data == jpegs(0, 10)[(number - 1) % 10]
    for seed in range(3):
        mixed = random.Random(seed).sample(places, 13)
        by_row = [jpegs(0, 10)[4 * group + row] for _, group, row in mixed]
        assert list(row_groups.rows(source.files, mixed, asked)) == by_row


@pytest.mark.parametrize(
    ("groups", "most", "ends"),
    [
        ([4, 4, 2], 4, [4, 8, 10]),
        ([4, 4, 2], 7, [4, 10]),
        ([2, 9, 1, 1, 1], 3, [2, 11, 14]),
        ([5], 2, [5]),
        ([], 2, []),
    ],
)  # fmt: skip
def test_tasks_hold_whole_row_groups(groups, most, ends):
    places = [(0, number, row) for number, count in enumerate(groups) for row in range(count)]
    items = Items(Item(f"{number:03d}", (), place=place) for number, place in enumerate(places))
    source = ParquetRows((), None, (), "image", "label")
    found = chunks(source, items, most)
    assert [rows.stop for rows in found] == ends
    assert [row for rows in found for row in rows] == list(range(len(items)))


@pytest.fixture
def groups_of_60(tmp_path, monkeypatch):
    """Two files of row groups that are far larger than a task was: 60 images to 4."""
    monkeypatch.setattr(listed, "CHUNK_IMAGES", 4)
    noise = np.random.default_rng(0)  # does not compress: what is decompressed is as long as the file
    for number in range(2):
        images = [data + noise.bytes(3_000) for data in jpegs(60 * number, 60)]
        parquet(tmp_path / f"in/{number}.parquet", images, [row % 3 for row in range(60)], group=60)
    return tmp_path / "in"


def test_shards_are_those_of_any_tasks_and_the_source_is_read_once(groups_of_60, tmp_path, monkeypatch, counted):
    asked = config(groups_of_60, {"subset": {"fraction": 0.9}}, images_per_shard=16)
    size = sum(path.stat().st_size for path in groups_of_60.iterdir())
    whole = contents(shards := ingest(tmp_path, asked, node="whole"))
    assert counted.decompressed <= MOST * size
    counted.decompressed = 0
    record, _ = read_record(shards.uri)
    seen = look(IngestConfig.model_validate(asked), IngestResources(), shards, record, True)
    assert not seen.changes and counted.decompressed <= MOST * size
    monkeypatch.setattr(sort, "chunk_stops", lambda begins, count, most: [*range(most, count, most), count])
    counted.decompressed = 0
    assert contents(ingest(tmp_path, asked, node="before")) == whole
    assert counted.decompressed > 5 * size  # negative control: tasks of 4 images of 60


@pytest.mark.s3
def test_a_bucket_is_read_once_too(s3_uri, large, monkeypatch, counted):
    path, images = large
    store = open_store(s3_uri)
    store.upload(path, "in/a.parquet")
    ranged, read = 0, type(store).read

    def counted_read(self, *args):
        nonlocal ranged
        data = read(self, *args)
        ranged += len(data)
        return data

    monkeypatch.setattr(type(store), "read", counted_read)
    source = opened(f"{s3_uri}/in/a.parquet")
    items = source.listing().items
    parts = chunks(source, items, CHUNK_IMAGES)
    counted.decompressed = 0
    assert [data for rows in parts for data in source.reads(items[rows.start : rows.stop])] == images
    assert counted.decompressed <= MOST * path.stat().st_size
    assert 0.99 <= ranged / path.stat().st_size <= MOST  # labels and footers among them
