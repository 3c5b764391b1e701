"""The cache is bounded and shared, a full disk only makes it slower, and what is read past it is verified too."""

import fcntl
import os
import random
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path
from unittest import mock

import pytest
from forking import processes
from photos import ingest, photo_folder, read_split

from vitpipe.infra.errors import IntegrityError, StorageError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.folders import flock
from vitpipe.infra.storage.landing import Landing
from vitpipe.infra.storage.local import LocalStore
from vitpipe.stages.images import cache_room
from vitpipe.stages.images import tars as tars_module
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.cache_room import CacheRoom, locked
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.reader_watch import ReaderWatch
from vitpipe.stages.images.split import Split
from vitpipe.stages.images.train import TrainImages


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six shards of four images."""
    folder = tmp_path_factory.mktemp("cached")
    root = photo_folder(folder / "source")
    return ingest(folder, {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 4})


@pytest.fixture
def tar_bytes(shards):
    return max(entry.bytes for entry in load_manifest(shards).shards)


@dataclass
class Told:
    """Doors that remember."""

    counts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, name, value, **labels):
        self.counts[name] = value

    def inc(self, name, amount=1.0, **labels):
        self.counts[name] = self.counts.get(name, 0.0) + amount

    def emit(self, kind, text):
        self.notes.append(text)


@pytest.fixture
def told():
    return Told()


def opened(shards, folder, told, max_bytes=None):
    return Split(shards, "train", ShardCache(folder, max_bytes, ReaderWatch(told, told)))


def everything(split):
    return [split.pixels(number).tobytes() for number in range(split.num_images)]


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.tar"))


def test_what_is_read_stays_within_the_bound_and_is_the_same(shards, tmp_path, told, tar_bytes):
    whole = everything(opened(shards, tmp_path / "all", told))
    assert len(kept(tmp_path / "all")) == 6 and not told.counts.get("uncached_samples_total")
    for room in (0, 1, 3):
        split = opened(shards, tmp_path / f"room-{room}", told, max_bytes=room * tar_bytes)
        assert everything(split) == whole
        assert len(kept(tmp_path / f"room-{room}")) == room
        assert told.counts.pop("uncached_samples_total") == 4 * (6 - room)
        assert "no room in" in told.notes.pop() and not told.notes  # reported once, counted each time
    assert told.counts["shard_wait_seconds_total"] > 0


def test_what_is_fetched_before_anybody_needs_it_is_no_wait(shards, tmp_path, told):
    split = opened(shards, tmp_path, told)
    assert split._fetch(0) and len(kept(tmp_path)) == 1
    assert told.counts["shard_wait_seconds_total"] == 0
    split.gather([23])
    assert told.counts["shard_wait_seconds_total"] > 0 and len(kept(tmp_path)) == 2


def test_what_killed_fetches_left_counts_and_goes(tmp_path):
    """Parts that nobody fetches make room, the oldest first; one that is being fetched stays, within its room."""
    folder = tmp_path / "ab"
    folder.mkdir()
    for number in range(50):
        part = folder / f"ab{number}.tar.part"
        part.write_bytes(b"x" * 100)
        os.utime(part, (number, number))
    room = CacheRoom(tmp_path, 1_000)
    with locked(folder / "ab0.lock") as fetching, locked(folder / "new.lock") as wanted:
        os.ftruncate(fetching.fileno(), 200)
        assert room.make(500, wanted)
        left = {part.name for part in tmp_path.glob("??/*.part")}
        assert left == {"ab0.tar.part", "ab47.tar.part", "ab48.tar.part", "ab49.tar.part"}
        assert not room.make(1_001, wanted)
        os.ftruncate(wanted.fileno(), 0)
        (folder / "new.tar.part").write_bytes(b"x" * 100)
        assert room.make(800, wanted) and (folder / "new.tar.part").exists(), "it is part of what is wanted"


def test_the_least_recently_used_goes_and_what_is_mapped_stays(shards, tmp_path, tar_bytes):
    cache = ShardCache(tmp_path, max_bytes=2 * tar_bytes)
    first, second, third = load_manifest(shards).shards[:3]
    held = [cache.mapped(shards, first), cache.mapped(shards, second)]
    assert all(held) and cache.mapped(shards, third) is None
    held[1].close()
    assert cache.mapped(shards, third) is not None
    names = {path.stem for path in kept(tmp_path)}
    assert names == {first.sha256, third.sha256}
    held[0].close()
    assert cache.mapped(shards, second) is not None  # the first was used longest ago, and nobody maps the others
    assert {path.stem for path in kept(tmp_path)} == {second.sha256, third.sha256}


def test_idle_maps_make_room(shards, tmp_path, told, tar_bytes, monkeypatch):
    monkeypatch.setattr(tars_module, "IDLE_S", 0.0)
    everything(opened(shards, tmp_path, told, max_bytes=3 * tar_bytes - 1))  # two, and the tables of six
    assert not told.counts.get("uncached_samples_total")
    assert len(kept(tmp_path)) == 2


@contextmanager
def disk_full(after: int):
    """The disk takes so many files, then no byte more."""
    original, left = Landing._fetch, [after]

    def fetch(self, part, chunks):
        if left[0] == 0:
            part.write(b"the first bytes")
            raise OSError(ENOSPC, "No space left on device", str(self._part))
        left[0] -= 1
        return original(self, part, chunks)

    with mock.patch.object(Landing, "_fetch", fetch):
        yield


@pytest.mark.parametrize("after", [0, 2])
def test_a_full_disk_only_makes_it_slower(shards, tmp_path, told, after):
    whole = everything(opened(shards, tmp_path / "all", told))
    with disk_full(after):
        assert everything(opened(shards, tmp_path / "full", told)) == whole
    assert told.counts["uncached_samples_total"] == 4 * (6 - after)
    assert not list((tmp_path / "full").rglob("*.part"))  # nothing half is left to fill it further
    assert everything(opened(shards, tmp_path / "full", told)) == whole and len(kept(tmp_path / "full")) == 6


def test_a_disk_without_spare_room_is_left_alone(shards, tmp_path, told, monkeypatch):
    monkeypatch.setattr(cache_room, "SPARE_BYTES", 10**18)
    everything(opened(shards, tmp_path, told))
    assert kept(tmp_path) == [] and told.counts["uncached_samples_total"] == 24


def test_a_cache_that_may_not_be_written_is_done_without(shards, tmp_path, told):
    refused = PermissionError(13, "Permission denied", str(tmp_path))
    with mock.patch.object(Path, "mkdir", side_effect=refused):
        assert len(everything(opened(shards, tmp_path / "forbidden", told))) == 24
    broken = OSError(5, "Input/output error")
    with mock.patch.object(Path, "mkdir", side_effect=broken), pytest.raises(StorageError, match="Input/output"):
        everything(opened(shards, tmp_path / "broken", told))


@contextmanager
def flips(path: str, times: int):
    """Reads of `path` come with a flipped bit, so many times."""
    left = [times]
    read, chunks = LocalStore.read, LocalStore._chunks

    def flipped(data: bytes, name: str) -> bytes:
        if name.endswith(path) and left[0] and data:
            left[0] -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    with (
        mock.patch.object(LocalStore, "read", lambda self, name, *a: flipped(read(self, name, *a), name)),
        mock.patch.object(
            LocalStore, "_chunks", lambda self, name, start: (flipped(c, name) for c in chunks(self, name, start))
        ),
    ):
        yield


@pytest.mark.parametrize("room", [0, None])
def test_a_bit_that_flips_on_the_way_is_read_again_and_a_damaged_shard_is_named(shards, tmp_path, told, room):
    whole = everything(opened(shards, tmp_path / "all", told))
    retries = []
    traffic.listen(listener := lambda kind, amount: retries.append(kind) if kind == "retries" else None)
    with flips("train-000002.tar", 1):
        assert everything(opened(shards, tmp_path / "once", told, room)) == whole
    traffic.unlisten(listener)
    assert retries == ["retries"]
    with flips("train-000002.tar", 100), pytest.raises(IntegrityError, match=r"train-000002\.tar"):
        everything(opened(shards, tmp_path / "always", told, room))


def test_a_fetch_that_died_reserves_nothing(shards, tmp_path, tar_bytes):
    cache = ShardCache(tmp_path, max_bytes=tar_bytes)
    entry = load_manifest(shards).shards[0]
    left = tmp_path / "ab" / "abc.lock"
    left.parent.mkdir()
    left.write_bytes(b"")
    with left.open("r+b") as file:
        file.truncate(10**12)
    assert cache.mapped(shards, entry) is not None


@pytest.mark.parametrize("lands", ["before", "while", "after"])
def test_a_shard_that_lands_while_room_is_made_is_counted_once(tmp_path, monkeypatch, lands):
    """Whether it lands before, while or after the reservations are looked at: its bytes are reserved, or lie there."""
    folder = tmp_path / "ab"
    folder.mkdir()
    original = cache_room._reserved
    with locked(folder / "abc.lock") as fetching, (tmp_path / "reservation").open("wb") as reservation:
        os.ftruncate(fetching.fileno(), 700)

        def land():
            (folder / "abc.tar").write_bytes(bytes(700))
            os.ftruncate(fetching.fileno(), 0)
            flock(fetching, fcntl.LOCK_UN)

        def looks(lock):
            if lands == "while":
                land()
            found = original(lock)
            if lands == "after":
                land()
            return found

        monkeypatch.setattr(cache_room, "_reserved", looks)
        if lands == "before":
            land()
        monkeypatch.setattr(cache_room, "_removed", lambda file: False)  # it is in use
        assert not CacheRoom(tmp_path, 1000).make(301, reservation)
        assert CacheRoom(tmp_path, 1000).make(300, reservation)


def read_with_little_room(shards, folder, max_bytes, seed):
    """One of several readers of one cache, in an order of its own."""
    split = Split(shards, "train", ShardCache(folder, max_bytes))
    for number in random.Random(seed).sample(range(split.num_images), split.num_images):
        split.pixels(number)


def test_many_processes_share_a_cache_that_is_too_small(shards, tmp_path, tar_bytes):
    context = processes()
    bound = 3 * tar_bytes
    readers = [
        context.Process(target=read_with_little_room, args=(shards, tmp_path / "cache", bound, seed))
        for seed in range(4)
    ]
    for reader in readers:
        reader.start()
    most = 0
    while any(reader.is_alive() for reader in readers):
        with suppress(FileNotFoundError):  # removed since it was listed
            most = max(most, sum(path.stat().st_size for path in kept(tmp_path / "cache")))
        readers[0].join(0.005)
    assert [reader.exitcode for reader in readers] == [0] * 4
    assert most <= bound
    read_split(shards, tmp_path / "cache")


def test_a_reader_begins_anywhere_with_the_indexes_it_needs(shards, tmp_path, monkeypatch):
    """However large the set: not all indexes, nor all labels, are read before the first batch."""
    monkeypatch.setattr("vitpipe.stages.images.decoded_split.DECODED_BYTES", 0)
    read = []
    original = type(shards).read
    monkeypatch.setattr(type(shards), "read", lambda self, path: read.append(path) or original(self, path))
    train = TrainImages(shards, "train", 12, AugmentSettings(crop="none"), 0, tmp_path)
    batch = train.micro_batch(10_000_000_001, 1)
    assert len([path for path in read if path.endswith(".index")]) == 1
    assert batch.labels.tolist() == train.micro_batch(10_000_000_001, 3).labels.tolist()[:1]
    assert sorted(train.micro_batch(0, 24).labels.tolist()) == sorted(train.labels.tolist())


@pytest.mark.parametrize("room", [None, 2, 0])
def test_a_batch_fetches_several_at_once_and_each_thing_once(shards, tmp_path, told, tar_bytes, room, monkeypatch):
    """With a store that answers only once two have asked: one after another would never end."""
    together = threading.Barrier(2, timeout=20)
    asked = []
    read, chunks = LocalStore.read, LocalStore._chunks

    def meets(name):
        if name.endswith(".tar"):
            asked.append(name)
            together.wait()

    def chunked(self, name, start):
        meets(name)
        return chunks(self, name, start)

    cache = ShardCache(tmp_path, None if room is None else room * tar_bytes, ReaderWatch(told, told))
    monkeypatch.setattr("vitpipe.stages.images.decoded_split.DECODED_BYTES", 0)
    train = TrainImages(shards, "train", 12, AugmentSettings(crop="none"), 0, cache)
    with (
        mock.patch.object(LocalStore, "read", lambda self, name, *a: meets(name) or read(self, name, *a)),
        mock.patch.object(LocalStore, "_chunks", chunked),
    ):
        batch = train.micro_batch(0, 24)
    assert len(asked) == {None: 6, 2: 2 + 16, 0: 24}[room]
    whole = TrainImages(shards, "train", 12, AugmentSettings(crop="none"), 0, tmp_path / "whole").micro_batch(0, 24)
    assert (batch.images_BCHW == whole.images_BCHW).all() and not train._split._tars._read_ahead
