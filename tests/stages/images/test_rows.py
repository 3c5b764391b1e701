"""A table of a shard's index says what the index says, in few bytes, is shared on disk, and damage in it is noticed."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from many_shards import many_shards, opening
from photos import indexes

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images import cache_room
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.cache_room import CacheRoom
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import Manifest
from vitpipe.stages.images.rows import IndexRows
from vitpipe.stages.images.split import Split


def index_of(labels: list[list[int]]) -> ShardIndex:
    """As many images as `labels` has, of different lengths in every column."""
    count = len(labels)
    digests = [f"{number:064x}" for number in range(count)]
    return ShardIndex(
        path="x.tar", split="train", tar_bytes=10**12, sha256="0" * 64, plan_sha256="0" * 64, labels=labels,
        key=[f"k{10**number}" for number in range(count)], source=["s"] * count,
        ext=["jpg", "webp", "png", "jpg"][:count],
        offset=[512 + 10**11 * n for n in range(count)], size=[10 + n for n in range(count)], sha256s=digests,
        pixels_sha256=[digests[0], *("f" * 64 for _ in digests[1:])], width=[20 + n for n in range(count)],
        height=[70_000] * count,
    )  # fmt: skip


@pytest.mark.parametrize("labels", [[[3], [0], [21842], [1]], [[1, 5, 7], [], [2], [0, 9]], [[], [], [], []], [[4]]])
def test_a_table_says_what_the_index_says(tmp_path, labels):
    index = index_of(labels)
    path = tmp_path / "x.rows"
    path.write_bytes(IndexRows.of(index).encode())
    for rows in (IndexRows.of(index), IndexRows.mapped(path)):
        begins, sizes = rows.places(np.arange(index.count))
        assert (begins.tolist(), sizes.tolist()) == (index.offset, index.size)
        for name in ("height", "width", "image_bytes"):
            assert getattr(rows, name).tolist() == list(getattr(index, name))
        for row in range(index.count):
            assert (rows.key(row), rows.ext(row), rows.labels(row)) == (
                index.key[row],
                index.ext[row],
                index.labels[row],
            )
            assert rows.place(row) == (index.offset[row], index.size[row])
            assert rows.sha256(row) == index.sha256s[row]
            assert rows.was_decoded(row) == (index.pixels_sha256[row] != index.sha256s[row]) == (row > 0)


def test_a_usual_shard_takes_few_bytes_an_image():
    """32 are the digest; the rest is narrow because a shard's numbers are small, and its keys much alike."""
    count = 2300
    digests = [f"{number:064x}" for number in range(count)]
    index = ShardIndex(
        path="x.tar", split="train", tar_bytes=10**9, sha256="0" * 64, plan_sha256="0" * 64,
        key=[f"train-{1_000_000 + number:09d}" for number in range(count)], source=["s"] * count,
        offset=[512 * 220 * number for number in range(count)], size=[110_000] * count, ext=["jpg"] * count,
        labels=[[number % 1000] for number in range(count)], sha256s=digests, pixels_sha256=digests[::-1],
        width=[500] * count, height=[375] * count,
    )  # fmt: skip
    assert len(IndexRows.of(index).encode()) <= 60 * count


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    whole = IndexRows.of(index_of([[1], [2]])).encode()
    path = tmp_path / "x.rows"
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert IndexRows.mapped(path) is None
        path.write_bytes(whole[:place])
        assert IndexRows.mapped(path) is None
    path.write_bytes(whole)
    assert IndexRows.mapped(path) is not None


def test_a_damaged_table_is_made_again(photos, tmp_path):
    split = Split(photos, "train", tmp_path)
    labels = split.labels.tolist()
    assert labels == [label for index in indexes(split) for (label,) in index.labels]
    tables = sorted(tmp_path.rglob("*.rows2"))
    assert len(tables) == len(split.entries)
    whole = tables[0].read_bytes()
    old = tables[0].with_suffix(".rows")  # what an older version made of it is nobody's
    old.write_bytes(b"older")
    tables[0].write_bytes(whole[:40] + b"\xff" + whole[41:])
    assert Split(photos, "train", tmp_path).labels.tolist() == labels
    assert tables[0].read_bytes() == whole
    assert old.read_bytes() == b"older"


def of_train(fields):
    return next(entry for entry in fields["shards"] if entry["split"] == "train")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda fields: of_train(fields).update(count=1), "of another shard"),
        (lambda fields: of_train(fields).update(sha256="0" * 64), "of another shard"),
        (lambda fields: fields.update(classes=fields["classes"][:1]), r"labels up to \d with 1 classes"),
        (lambda fields: fields.update(classes=[]), r"labels up to \d with 0 classes"),
    ],
)
def test_rows_in_the_cache_are_held_against_each_manifest(photos, tmp_path, monkeypatch, change, found):
    """As when they are made: a set that names the same index may say something else of it."""
    assert len(Split(photos, "train", tmp_path).labels)
    fields = photos.read_json("manifest.json")
    change(fields)
    other = Manifest.model_validate(fields)
    monkeypatch.setattr("vitpipe.stages.images.united.load_manifest", lambda shards: other)
    for cache in (tmp_path, tmp_path / "empty"):
        with pytest.raises(IntegrityError, match=found if cache == tmp_path else "labels|of another shard"):
            Split(photos, "train", cache).rows(0)


def test_indexes_are_read_once_a_machine(photos, tmp_path, monkeypatch):
    read = []
    original = type(photos).read
    monkeypatch.setattr(type(photos), "read", lambda self, path: read.append(path) or original(self, path))
    for _ in range(2):  # two processes
        split = Split(photos, "train", tmp_path)
        for number in range(split.num_images):
            split.pixels(number)
    assert sorted(path for path in read if path.endswith(".index")) == sorted(entry.index for entry in split.entries)


def test_twenty_thousand_shards_are_opened_in_little_memory(tmp_path):
    """A rank's share of a batch of 4,096: without a look at all indexes, nor at all that lies in the cache."""
    many_shards(tmp_path / "shards", 20_000, 700)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        opening_args = (tmp_path / "shards", tmp_path / "cache", 64)
        grown, labels = pool.apply(opening, opening_args)
    assert grown < 200e6
    assert len(np.unique(labels)) > 32  # of shards far apart


@pytest.fixture
def full(tmp_path) -> Path:
    """A cache of 1,200 small files."""
    for number in range(1200):
        file = tmp_path / f"{number % 256:02x}" / f"{number:064x}.tar"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(100))
    return tmp_path


@pytest.mark.parametrize("most", [None, 200_000])
def test_what_lies_there_is_looked_at_only_when_it_may_be_too_much(full, most, monkeypatch):
    room, looks = CacheRoom(full, most), []
    original = CacheRoom._files
    monkeypatch.setattr(CacheRoom, "_files", lambda self, own: looks.append(1) or original(self, own))
    with (full / "reservation").open("wb") as reservation:
        made = [room.make(1000, reservation) for _ in range(100)]
    assert all(made)
    # bounded: a first look, one when the sum may be above the bound, for it is no less than the truth
    assert len(looks) == (0 if most is None else 2)
    monkeypatch.setattr(cache_room, "PLENTY", 10**18)
    with (full / "reservation").open("wb") as reservation:
        assert room.make(1000, reservation)
    assert len(looks) == (1 if most is None else 3)


def test_of_many_files_a_twentieth_is_removed_at_a_time(full, monkeypatch):
    bound = 1200 * 100
    with (full / "reservation").open("wb") as reservation:
        assert CacheRoom(full, bound).make(1000, reservation)
    left = sum(file.stat().st_size for file in full.rglob("*.tar"))
    assert left == bound * 95 // 100 - 1000
    assert ShardCache(full, bound)._room == CacheRoom(full, bound)
