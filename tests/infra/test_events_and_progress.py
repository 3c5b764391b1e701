"""What running nodes leave for people: events in order, and one progress file that never makes anybody wait."""

import json
import pickle
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults.s3_proxy import Proxy
from s3_server import S3Server

from vitpipe.infra import events
from vitpipe.infra.at_once import READERS, answers
from vitpipe.infra.errors import IntegrityError, StorageError
from vitpipe.infra.events import StoreEvents, read_events
from vitpipe.infra.progress import PROGRESS, StoreProgress, read_progress
from vitpipe.infra.storage import s3
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store


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


GOOD = {"time": "2026-01-01T00:00:00.000Z", "fence": 1, "node": "net", "kind": "failed", "text": "it is so"}


def test_a_damaged_event_is_told_in_its_place_and_the_others_are_too(tmp_path: Path) -> None:
    run, whole = LocalStore(tmp_path), json.dumps(GOOD).encode()
    others = [{**GOOD, name: wrong} for name in GOOD for wrong in (None, [1], {"a": 1})]
    without = [{key: value for key, value in GOOD.items() if key != name} for name in GOOD]
    damaged = [b"", b"[", b"[]", b"5", b"null", b"\xff\xfe", b"[" * 100_000, whole[:-1], whole + b"}"]
    damaged += [json.dumps(one).encode() for one in (*others, *without)]
    for place, content in enumerate(damaged):
        (tmp_path / "events").mkdir(exist_ok=True)
        (tmp_path / f"events/{2 * place:020}-7-x.json").write_bytes(content)
        (tmp_path / f"events/{2 * place + 1:020}-7-x.json").write_bytes(whole)
    (tmp_path / "events/no-name-of-ours.json").write_bytes(b"")
    nameless, *found = read_events(run)
    assert nameless.kind == "damaged" and (nameless.time, nameless.fence) == ("", 0)
    assert [event.kind for event in found] == ["damaged", "failed"] * len(damaged)
    for place, event in enumerate(found[::2]):
        name = f"{2 * place:020}-7-x.json"
        assert event.text.startswith(f"damaged event: {name} (") and (event.name, event.fence) == (name, 7)
        assert event.to_json().keys() == GOOD.keys() and event.time == "1970-01-01T00:00:00.000Z"
    newer = {**GOOD, "more": "of a later version"}
    (tmp_path / f"events/{10**19:020}-7-x.json").write_bytes(json.dumps(newer).encode())
    assert [event.kind for event in read_events(run, tail=1)] == ["failed"]


def test_any_changed_byte_of_an_event_is_one_event(tmp_path: Path) -> None:
    run, whole = LocalStore(tmp_path), json.dumps(GOOD).encode()
    (tmp_path / "events").mkdir()
    for place in range(len(whole)):
        for bit in (0, 3, 7):
            changed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            (tmp_path / f"events/{8 * place + bit:020}-1-x.json").write_bytes(changed)
    assert len(list(read_events(run))) == 3 * len(whole)


@pytest.mark.s3
def test_the_tail_of_many_costs_their_names_and_what_is_shown(
    proxy: Proxy, s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 100)
    client, (bucket, prefix) = s3_server.client(), s3_uri.removeprefix("s3://").split("/", 1)
    texts = [str(number) for number in range(150)]

    def put(text: str) -> None:
        body = json.dumps({**GOOD, "text": text}).encode()
        client.put_object(Bucket=bucket, Key=f"{prefix}/events/{int(text):020}-1-x.json", Body=body)

    list(answers(put, texts))
    run = open_store(s3_uri)
    assert [event.text for event in read_events(run, tail=20)] == texts[-20:]
    ours = [request for request, _ in proxy.requests if prefix.partition("/")[0] in request]
    reads = [request for request in ours if request.endswith(".json")]
    assert len(reads) == 20 and len(ours) - len(reads) == 2, "and two pages of names"
    assert [event.text for event in read_events(run, after=f"{140:020}-1-x.json", tail=20)] == texts[141:]
    assert list(read_events(run, tail=0)) == []


class Meeting(LocalStore):
    """Reads of it end only when so many are under way."""

    met = threading.Barrier(READERS)

    def read(self, path: str, *where: Any, **more: Any) -> bytes:
        self.met.wait(timeout=20)
        return super().read(path, *where, **more)


def test_events_are_read_many_at_once_and_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    for number in range(4 * READERS):
        content = json.dumps({**GOOD, "text": str(number)})
        (tmp_path / f"events/{number:020}-1-x.json").write_text(content)
    assert [event.text for event in read_events(Meeting(tmp_path))] == [str(number) for number in range(4 * READERS)]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"attempt": "a1", "fence": "1"}', b'{"attempt": "a1", "fence": 1, "ranks": [1]}',
     b'{"attempt": "a1", "fence": 1, "step": "many"}', b'{"attempt": "a1", "fence": 1, "metrics": []}'],
)  # fmt: skip
def test_damaged_progress_is_said(tmp_path: Path, content: bytes) -> None:
    node = LocalStore(tmp_path)
    node.write(PROGRESS, content)
    with pytest.raises(IntegrityError, match=r"progress\.json"):
        read_progress(node)


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
    assert "progress.json could not be written" in caplog.text


@pytest.mark.parametrize(("first", "left"), [(1, 90.0), (4, None)])
def test_time_to_go_counts_the_first_task_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first, left) -> None:
    clock = [100.0]
    monkeypatch.setattr("vitpipe.infra.progress.time", SimpleNamespace(monotonic=lambda: clock[0], time=lambda: 0.0))
    progress = StoreProgress(LocalStore(tmp_path), "a1", 1, every_s=3600)
    progress.begin()
    clock[0] += 10
    progress.update(first, 10)
    progress.flush()
    assert (read_progress(LocalStore(tmp_path)) or {})["eta_seconds"] == left, "what was adopted says nothing of pace"


def test_the_pace_of_a_phase_says_nothing_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine quick trials, then three slow ones: nothing is said to take no time."""
    clock = [100.0]
    monkeypatch.setattr("vitpipe.infra.progress.time", SimpleNamespace(monotonic=lambda: clock[0], time=lambda: 0.0))
    progress = StoreProgress(LocalStore(tmp_path), "a1", 1, every_s=3600)
    progress.begin()

    def left(step: int, total: int, after: float) -> float | None:
        clock[0] += after
        progress.update(step, total, "trials")
        progress.flush()
        return (read_progress(LocalStore(tmp_path)) or {})["eta_seconds"]

    assert [left(step, 3, 1) for step in (1, 2, 3)] == [2.0, 1.0, None]
    assert [left(step, 3, 60) for step in (0, 1, 2, 3)] == [None, 120.0, 60.0, None]
    assert [left(step, 9, 5) for step in (3, 4)] == [None, 25.0], "more to do is another phase"
