"""Shards are on their way before they are needed, and no batch waits for one that is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import ingest, photo_folder

from vitpipe.infra.errors import IntegrityError, StorageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images import ahead as ahead_module
from vitpipe.stages.images import order as order_module
from vitpipe.stages.images.ahead import FETCHERS, ShardsAhead
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.train import TrainImages

RANGES = [(start, 4) for start in range(0, 24, 4)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Six shards of four images."""
    folder = tmp_path_factory.mktemp("ahead")
    root = photo_folder(folder / "source")
    return ingest(folder, {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 4})


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "WINDOW", 64)


@pytest.fixture(autouse=True)
def read_from_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitpipe.stages.images.decoded_split.DECODED_BYTES", 0)


def opened(shards: ShardSet, cache: Path) -> TrainImages:
    return TrainImages(shards, "train", 12, AugmentSettings(), 0, cache)


def fetchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("vitpipe-ahead")}


def owners(order: Order, numbers: np.ndarray) -> set[int]:
    """The shards that samples are in."""
    return set(np.searchsorted(order.counts.cumsum(), numbers, side="right").tolist())


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(0, 90), min_size=1, max_size=40).filter(any),
    start=st.integers(0, 3000),
    count=st.integers(1, 200),
)
def test_the_shards_of_the_windows_hold_whatever_is_read(counts: list[int], start: int, count: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(order_module, "WINDOW", 64)
        order = Order(counts, "digest", 0)
        positions = np.arange(start, start + count)
        windows = order.windows_at(positions)
        named = [set(order.shards_of(window).tolist()) for window in windows]
        assert owners(order, order.lookup(positions)[1]) <= set().union(*named)
        assert len(set(windows)) == len(windows)
        both = Mixture([order, Order([50, 50], "other", 0)], [0.5, 0.5], "both", 0)
        of_both = {shard for window in both.windows_at(positions) for shard in both.shards_of(window).tolist()}
        ends = np.concatenate([order.counts, [50, 50]]).cumsum()
        assert set(np.searchsorted(ends, both.lookup(positions)[1], side="right").tolist()) <= of_both


def test_a_turn_leads_each_stream_into_its_next_window(small_windows: None) -> None:
    order = Order([70] * 40, "digest", 0)
    assert order.streams > 4
    for position in range(0, order.num_images - order.turn, 97):
        now, later = (order.windows_at(np.arange(at, at + 32)) for at in (position, position + order.turn))
        assert not set(now) & set(later)


@contextmanager
def held_back(
    monkeypatch: pytest.MonkeyPatch, shards: ShardSet
) -> Iterator[tuple[threading.Event, list[str], list[str]]]:
    """A store whose tars come whole only once the event is set; names of those asked for whole, and in part."""
    free, whole, parts, uri = threading.Event(), list[str](), list[str](), shards.store().uri
    chunks, read = LocalStore._chunks, LocalStore.read

    def chunked(self: LocalStore, name: str, start: int) -> Iterator[bytes]:
        if name.endswith(".tar") and self.uri == uri:  # readers of other tests may not have ended
            whole.append(name)
            assert free.wait(30)
        return chunks(self, name, start)

    def ranged(self: LocalStore, name: str, *of: int) -> bytes:
        if name.endswith(".tar") and self.uri == uri:
            parts.append(name)
        return read(self, name, *of)

    monkeypatch.setattr(LocalStore, "_chunks", chunked)
    monkeypatch.setattr(LocalStore, "read", ranged)
    try:
        yield free, whole, parts
    finally:
        free.set()


def test_no_batch_waits_for_a_shard_that_is_on_its_way(
    shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [batch.images_BCHW for batch in map(lambda pair: opened(shards, tmp_path).micro_batch(*pair), RANGES)]
    train = opened(shards, tmp_path / "cold")
    with held_back(monkeypatch, shards) as (free, whole, parts):
        made = train.stream(RANGES, threads=2, prefetch=1)
        first = [next(made), next(made)]
        assert len(set(whole)) == 6 and len(parts) >= 8  # all are asked for, none has come
        free.set()
        waited = threading.Event()
        while len([*(tmp_path / "cold").glob("??/*.tar")]) < 6:
            assert not waited.wait(0.02)
        begun = len(parts)
        batches = [*first, *made]
        assert len(parts) <= begun + 4  # one batch may have been begun before the last of them came
    assert all((batch.images_BCHW == one).all() for batch, one in zip(batches, expected, strict=True))
    assert not train._split._tars._read_ahead


def test_a_shard_that_is_here_is_not_read_in_parts(
    shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(shards, tmp_path).micro_batch(0, 24)
    with held_back(monkeypatch, shards) as (_, whole, parts):
        assert len([*opened(shards, tmp_path).stream(RANGES)]) == 6
        assert whole == parts == []


def test_what_a_fetch_raises_is_met_by_the_reader(
    shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: LocalStore, name: str, start: int) -> Iterator[bytes]:
        yield b"other bytes"

    monkeypatch.setattr(LocalStore, "_chunks", damaged)
    with pytest.raises((IntegrityError, StorageError), match=r"\.tar"):
        for _ in range(50):  # until the threads have given up on some shard that is read
            [*opened(shards, tmp_path).stream(RANGES * 3)]


class Fetching:
    """Shards that were fetched, with room for a number of them."""

    def __init__(self, room: int = 10**6) -> None:
        self.shards: list[int] = []
        self.kept: list[int] = []
        self.room, self._changed = room, threading.Condition()

    def __call__(self, shard: int) -> bool:
        with self._changed:
            self.shards.append(shard)
            self.kept += [shard] if len(self.kept) < self.room else []
            self._changed.notify_all()
            return shard in self.kept

    def until(self, enough: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(enough, timeout=20)


def test_threads_go_one_turn_further_than_the_reader_and_end_with_it(small_windows: None) -> None:
    order = Order([16] * 400, "digest", 0)
    ranges = [(start, 32) for start in range(0, 3 * order.num_images, 32)]
    fetching, before = Fetching(), fetchers()
    ahead = ShardsAhead(order, ranges, fetching)
    assert len(fetchers() - before) == FETCHERS

    def needed(position: int) -> set[int]:
        windows = order.windows_at(np.arange(position))
        return {shard for window in windows for shard in order.shards_of(window).tolist()}

    for at in (0, order.turn // 2, order.num_images):
        ahead.reached(at)
        assert fetching.until(lambda at=at: needed(at + order.turn) <= set(fetching.shards))
    assert set(fetching.shards) <= needed(order.num_images + order.turn + 32)
    mine = fetchers() - before
    ahead.close()
    for thread in mine:
        thread.join(20)
    assert not any(thread.is_alive() for thread in mine)


def test_without_room_they_rest_and_nobody_counts_on_them(small_windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order([16] * 400, "digest", 0)
    fetching = Fetching(room=3)
    ahead = ShardsAhead(order, [(start, 32) for start in range(0, order.num_images, 32)], fetching)
    assert fetching.until(lambda: len(fetching.shards) > 3)
    rested = threading.Event()
    while any(map(ahead.awaits, range(400))):
        assert not rested.wait(0.02)
    assert len(fetching.shards) <= 3 + FETCHERS
    monkeypatch.setattr(ahead_module, "PAUSE_S", 0.0)
    ahead.close()


@pytest.mark.parametrize("turns", [0, 3])
def test_once_there_is_room_again_all_that_is_still_ahead_is_fetched(
    small_windows: None, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Nothing that was looked up before the disk was full is lost, and nothing is fetched that was passed meanwhile."""
    monkeypatch.setattr(ahead_module, "PAUSE_S", 0.05)
    order = Order([16] * 400, "digest", 0)
    ranges = [(start, 32) for start in range(0, 5 * order.turn, 32)]
    fetching = Fetching(room=3)
    ahead = ShardsAhead(order, ranges, fetching)
    assert fetching.until(lambda: len(fetching.shards) > 3)
    ahead.reached(turns * order.turn)
    begun = 3 if turns else 0
    fetching.room = 10**9
    assert fetching.until(lambda: set(range(400)) <= set(fetching.kept[begun:]))
    rested = threading.Event()
    while ahead._next or ahead._awaited:
        assert not rested.wait(0.02)
    ahead.close()
    each = 2 if turns else 1  # a turn has each shard once; its windows, and those of the turn before that still last
    assert len(fetching.kept) <= each * 400 + begun + FETCHERS
