"""What running nodes leave for people: events in order, and one progress file that never makes anybody wait."""

import json
import pickle
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra import events
from infra.errors import IntegrityError, StorageError
from infra.events import StoreEvents, read_events
from infra.progress import PROGRESS, StoreProgress, read_progress
from infra.storage.local import LocalStore


def test_events_come_in_order_and_on_from_the_last_one_seen(tmp_path: Path) -> None:
    run = LocalStore(tmp_path)
    events = pickle.loads(pickle.dumps(StoreEvents(run, 3)))
    for kind in ("started", "checkpoint_committed", "committed"):
        events.of("backbone").emit(kind, f"it {kind}")
    found = list(read_events(run))
    assert [event.kind for event in found] == ["started", "checkpoint_committed", "committed"]
    assert found[0].to_json().keys() == {"time", "fence", "node", "kind", "text"} and found[0].time.endswith("Z")
    assert [event.kind for event in read_events(run, after=found[1].name)] == ["committed"]
    assert list(read_events(run, after=found[2].name)) == []
    run.write("events/99999999999999999999-1-x.json", b"[")
    with pytest.raises(IntegrityError, match="99999"):
        list(read_events(run))


def test_a_driver_with_a_slow_clock_comes_after_the_one_it_took_over_from(tmp_path: Path, monkeypatch) -> None:
    run, now_ns = LocalStore(tmp_path), time.time_ns()
    StoreEvents(run, 1).emit("started", "")
    monkeypatch.setattr(events, "time", SimpleNamespace(time_ns=lambda: now_ns - 2_400 * 10**9))
    StoreEvents(run, 2).emit("takeover", "")
    found = list(read_events(run))
    assert [event.kind for event in found] == ["started", "takeover"]
    assert [event.kind for event in read_events(run, after=found[0].name)] == ["takeover"]


class Counting(LocalStore):
    writes = 0

    def write(self, path: str, data: bytes) -> object:  # type: ignore[override]
        type(self).writes += 1
        return super().write(path, data)


def test_only_the_newest_progress_is_written(tmp_path: Path) -> None:
    node = Counting(tmp_path)
    progress = pickle.loads(pickle.dumps(StoreProgress(node, "a1", 1, every_s=3600)))
    assert read_progress(node) is None
    progress.begin()
    assert read_progress(node) == {"attempt": "a1", "fence": 1, "step": 0, "total": None, "time": node_time(node)}
    for step in range(1, 500):
        progress.update(step, 1000, "steps", loss=2.5, ranks=[{"rank": 0, "host": "here", "pid": 7}])
    progress.flush()
    found = read_progress(node)
    assert found and found["step"] == 499 and found["unit"] == "steps" and found["ranks"][0]["pid"] == 7
    assert found["eta_seconds"] >= 0 and found["loss"] == 2.5 and found["fence"] == 1
    assert Counting.writes <= 4  # begin, the first at once, the last by flush
    progress.flush()
    assert Counting.writes <= 4


def node_time(node: LocalStore) -> float:
    return float(json.loads(node.read(PROGRESS))["time"])


class Down(LocalStore):
    def write(self, path: str, data: bytes) -> object:  # type: ignore[override]
        raise StorageError("write", "503")


def test_a_store_that_is_down_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    progress = StoreProgress(Down(tmp_path), "a1", 1, every_s=3600)
    progress.update(1, 2)
    progress.flush()
    assert "progress could not be written" in caplog.text


@pytest.mark.parametrize(("first", "left"), [(1, 90.0), (4, None)])
def test_time_to_go_counts_the_first_task_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first, left) -> None:
    clock = [100.0]
    monkeypatch.setattr("infra.progress.time", SimpleNamespace(monotonic=lambda: clock[0], time=lambda: 0.0))
    progress = StoreProgress(LocalStore(tmp_path), "a1", 1, every_s=3600)
    progress.begin()
    clock[0] += 10
    progress.update(first, 10)
    progress.flush()
    assert (read_progress(LocalStore(tmp_path)) or {})["eta_seconds"] == left, "what was adopted says nothing of pace"
