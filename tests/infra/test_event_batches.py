"""Events lie in few objects, each there when it was said; what repeats is counted and told; old ones are read."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vitpipe.infra import event_batches
from vitpipe.infra.errors import StorageError
from vitpipe.infra.event_batches import LIMITS, BatchWriter, begin_anew
from vitpipe.infra.events import EventReader, StoreEvents, new_events, read_events, tell_counted
from vitpipe.infra.storage.local import LocalStore

OLD = {"time": "2026-01-01T00:00:00.000Z", "fence": 1, "node": "net", "kind": "failed", "text": "of an earlier version"}


def objects(folder: Path) -> list[str]:
    return [entry.path for entry in LocalStore(folder).list("events/")]


def texts(folder: Path) -> list[str]:
    return [event.text for event in read_events(LocalStore(folder))]


def test_a_process_writes_one_object_and_each_event_is_in_it_at_once(tmp_path: Path) -> None:
    door = StoreEvents(LocalStore(tmp_path), 1, "net")
    for number in range(50):
        door.of(f"n{number % 3}").emit("note", str(number))
        assert texts(tmp_path)[-1] == str(number), "nothing waits in memory"
    assert len(objects(tmp_path)) == 1 and texts(tmp_path) == [str(number) for number in range(50)]
    StoreEvents(LocalStore(tmp_path), 2).emit("takeover", "next")
    assert len(objects(tmp_path)) == 2 and texts(tmp_path)[-1] == "next"


def test_a_large_object_is_left_and_another_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_batches, "BATCH_BYTES", 600)
    door = StoreEvents(LocalStore(tmp_path), 1)
    for number in range(20):
        door.emit("note", str(number))
    assert 4 <= len(objects(tmp_path)) <= 10 and texts(tmp_path) == [str(number) for number in range(20)]


def test_threads_that_speak_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_batches, "BATCH_BYTES", 2_000)
    door = StoreEvents(LocalStore(tmp_path), 1)

    def speak(name: int) -> None:
        for number in range(20):
            door.emit("note", f"{name}-{number}")

    threads = [threading.Thread(target=speak, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(tmp_path)) == sorted(f"{name}-{number}" for name in range(6) for number in range(20))


class Moody(LocalStore):
    refuses = False

    def write(self, path: str, data: bytes):  # type: ignore[no-untyped-def]
        if Moody.refuses:
            raise StorageError("write", "503")
        return super().write(path, data)


def test_what_a_store_refused_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = StoreEvents(Moody(tmp_path), 1)
    monkeypatch.setattr(Moody, "refuses", True)
    for number in range(3):
        door.emit("note", str(number))
    last_word = door.event("failed", "the end")
    with pytest.raises(StorageError):
        last_word.write(door.run)
    assert texts(tmp_path) == []
    monkeypatch.setattr(Moody, "refuses", False)
    last_word.write(door.run)  # a second try of one event is not a second event
    assert texts(tmp_path) == ["0", "1", "2", "the end"]


def test_what_is_kept_for_a_store_that_refuses_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_batches, "KEPT_BYTES", 2_000)
    monkeypatch.setattr(Moody, "refuses", True)
    door = StoreEvents(Moody(tmp_path), 1)
    for number in range(100):
        door.emit("note", str(number))
    monkeypatch.setattr(Moody, "refuses", False)
    door.emit("note", "100")
    found = texts(tmp_path)
    assert found[-1] == "100" and 3 < len(found) < 20, "the newest stay"


def test_kinds_that_repeat_are_counted_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(event_batches.time, "monotonic", lambda: now[0])
    door = StoreEvents(LocalStore(tmp_path), 1, "net")
    for number in range(15):
        door.emit("straggler", f"rank {number}")
        door.emit("failed", f"{number}")
    found = [event for event in read_events(door.run) if event.kind == "straggler"]
    assert [event.text for event in found] == ["rank 0", "rank 1", "rank 2"] and LIMITS["straggler"] == 3
    assert len([text for text in texts(tmp_path) if text.isdecimal()]) == 15, "the control: no other kind is"
    door.of("other").emit("straggler", "rank 0 of another node")
    assert texts(tmp_path)[-1] == "rank 0 of another node"
    now[0] += 601
    door.emit("straggler", "rank 7")
    assert texts(tmp_path)[-1] == "rank 7; 12 more in the last 10 min"
    for _ in range(5):
        door.emit("straggler", "rank 8")
    tell_counted()  # as a process does when it ends
    tell_counted()
    assert texts(tmp_path)[-1] == "3 more in the last 1 min, the last: rank 8"
    assert sum("more in the last" in text for text in texts(tmp_path)) == 2


def test_a_window_that_is_over_is_told_without_another_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(event_batches.time, "monotonic", lambda: now[0])
    door = StoreEvents(LocalStore(tmp_path), 1, "net")
    for number in range(9):
        door.emit("loss_spike", str(number))
    tell_counted(every=False)
    assert len(texts(tmp_path)) == 3, "not yet"
    now[0] += 601
    tell_counted(every=False)
    assert texts(tmp_path)[-1] == "6 more in the last 10 min, the last: 8"


def test_runs_of_earlier_versions_and_of_both_are_read_in_order(tmp_path: Path) -> None:
    run = LocalStore(tmp_path)
    for number in range(4):
        run.write(f"events/{number:020}-1-x.json", json.dumps({**OLD, "text": str(number)}).encode())
    door = StoreEvents(run, 2)
    door.emit("note", "4")
    door.emit("note", "5")
    assert texts(tmp_path) == [str(number) for number in range(6)]
    found = list(read_events(run))
    assert [event.text for event in read_events(run, tail=3)] == ["3", "4", "5"]
    assert [event.text for event in read_events(run, after=found[2].name)] == ["3", "4", "5"]
    assert [event.text for event in new_events(run, 2, {found[4].name})] == ["5"]


def test_a_damaged_line_is_one_event_and_hides_no_other(tmp_path: Path) -> None:
    door = StoreEvents(LocalStore(tmp_path), 3)
    for number in range(3):
        door.emit("note", str(number))
    (path,) = objects(tmp_path)
    lines = (tmp_path / path).read_bytes().splitlines()
    (tmp_path / path).write_bytes(b"\n".join([lines[0], b"\xff{", lines[2][:-4], lines[1]]))
    found = list(read_events(door.run))
    assert sorted(event.kind for event in found) == ["damaged", "damaged", "note", "note"]
    assert all(event.fence == 3 for event in found) and len({event.name for event in found}) == 4


def test_a_reader_asks_again_only_for_what_was_written_to(tmp_path: Path) -> None:
    run = LocalStore(tmp_path)
    first, second = StoreEvents(run, 1), BatchWriter(run)
    first.emit("note", "0")
    event = first.event("note", "of another process")
    second.put(event.name, event.to_json())
    reads: list[str] = []

    class Counted(LocalStore):
        def read(self, path: str, *args: object, **more: object) -> bytes:  # type: ignore[override]
            reads.append(path)
            return super().read(path, *args, **more)  # type: ignore[arg-type]

    reader = EventReader(Counted(tmp_path))
    assert len(list(reader.read())) == 2 and len(reads) == 2
    first.emit("note", "1")
    assert len(list(reader.read())) == 3 and len(reads) == 3
    assert len(list(reader.read())) == 3 and len(reads) == 3


def test_another_drivers_time_begins_anew(tmp_path: Path) -> None:
    door = StoreEvents(LocalStore(tmp_path), 1)
    door.emit("note", "of a run that was deleted")
    for path in objects(tmp_path):
        (tmp_path / path).unlink()
    begin_anew(door.run)
    door.emit("note", "of the next")
    assert texts(tmp_path) == ["of the next"]


def test_what_was_counted_is_told_when_the_process_ends(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; import sys\n"
        "from vitpipe.infra.events import StoreEvents\n"
        "from vitpipe.infra.storage.local import LocalStore\n"
        "[StoreEvents(LocalStore(Path(sys.argv[1])), 1, 'net').emit('straggler', str(n)) for n in range(8)]\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, timeout=60)
    assert texts(tmp_path)[-1] == "5 more in the last 1 min, the last: 7"
