"""Copies of records are a shorter way to the same answer: whatever becomes of them, readers learn what is committed."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from counted import asked
from inprocess import HeldFence
from tiny_stages import HOOKS, tiny_spec, tiny_ways

from vitpipe.infra.errors import IntegrityError, StageError, StorageError
from vitpipe.infra.lease_state import Timing
from vitpipe.infra.progress import RESTARTING, StoreProgress, read_progress, read_restarting
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.drive import copying
from vitpipe.pipeline.drive.cluster_events import ClusterEvents
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.store import contents
from vitpipe.pipeline.store.contents import list_run
from vitpipe.pipeline.store.copies import COPIED_BYTES, COPIES, read_copies, records_in_run, renew_copies, sound
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.records import commit, read_committed
from vitpipe.pipeline.store.status import status_of
from vitpipe.stages.seal import SEAL, sealed

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
NODES: dict[str, Any] = {f"n{number}": {"value": number + 1, "pieces": 1} for number in range(5)}


def go(folder: Path, nodes: dict[str, Any] = NODES, replacing: tuple[str, ...] = ()) -> None:
    run(tiny_spec(folder, nodes), replacing, tiny_ways(timing=QUICK))


def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "runs" / "tiny")


def status(folder: Path, nodes: dict[str, Any] = NODES) -> RunStatus:
    return status_of(store(folder), tiny_spec(folder, nodes).graph)


def seen(folder: Path) -> tuple[dict[str, Any], int]:
    """The records that a reader finds, and how many of them it read themselves."""
    with asked(folder) as counts:
        found = records_in_run(store(folder), list_run(store(folder)), NODES)
    return found, sum(number for what, number in counts.items() if what.endswith("record.json"))


def truth(folder: Path) -> dict[str, Any]:
    return {id: read_committed(store(folder).child(id), id).record for id in NODES}  # type: ignore[union-attr]


def test_a_finished_run_is_read_from_its_copies(tmp_path: Path) -> None:
    go(tmp_path)
    found, read = seen(tmp_path)
    assert read == 0 and {id: one.record for id, one in found.items()} == truth(tmp_path)
    assert [one.sha256 for one in found.values()] == [
        read_committed(store(tmp_path).child(id), id).sha256
        for id in NODES  # type: ignore[union-attr]
    ]


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"{}", b"\xff", b'{"records": [1]}', b'{"records": {"n0": 1}}'])
def test_copies_that_cannot_be_read_are_passed_over(tmp_path: Path, content: bytes) -> None:
    go(tmp_path)
    store(tmp_path).write(COPIES, content)
    found, read = seen(tmp_path)
    assert read == 5 and {id: one.record for id, one in found.items()} == truth(tmp_path)
    fields = json.loads(content) if content.startswith(b"{") else {}
    if fields:  # sealed nonsense too
        store(tmp_path).write(COPIES, sealed(fields))
        assert {id: one.record for id, one in seen(tmp_path)[0].items()} == truth(tmp_path)


def test_any_changed_byte_of_the_copies_is_noticed(tmp_path: Path) -> None:
    go(tmp_path)
    whole = store(tmp_path).read(COPIES)
    for place in range(0, len(whole), 97):
        store(tmp_path).write(COPIES, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_copies(store(tmp_path)) == {}


def test_a_record_that_was_changed_lost_or_forged_since_is_seen_so(tmp_path: Path) -> None:
    go(tmp_path)
    for name, content in (("n0", b"{"), ("n1", None)):
        path = tmp_path / "runs/tiny" / name / "record.json"
        path.unlink() if content is None else path.write_bytes(content)
    found, read = seen(tmp_path)
    assert isinstance(found["n0"], IntegrityError) and "n1" not in found and read == 1
    with pytest.raises(IntegrityError):
        sound(found)
    nodes = {node.node: node for node in status(tmp_path).nodes}
    assert nodes["n0"].state == "failed" and "is damaged" in nodes["n0"].why
    assert nodes["n1"].state == "failed" and "lost" in nodes["n1"].why and nodes["n2"].state == "committed"
    assert renew_copies(store(tmp_path)) == 1 and set(read_copies(store(tmp_path))) == {"n2", "n3", "n4"}


def test_a_copied_run_is_read_by_its_records(tmp_path: Path) -> None:
    """The control: the same copies beside other files of the same bytes prove nothing."""
    go(tmp_path)
    for id in NODES:
        path = tmp_path / "runs/tiny" / id / "record.json"
        path.write_bytes(path.read_bytes())
    assert seen(tmp_path)[1] == 5
    assert renew_copies(store(tmp_path)) == 5 and seen(tmp_path)[1] == 0
    assert renew_copies(store(tmp_path)) == 0


def test_a_record_that_was_swapped_in_a_folder_is_read_itself(tmp_path: Path) -> None:
    go(tmp_path)
    changed = {**NODES, "n0": {"value": 9}}
    go(tmp_path, changed, ("n0",))
    found, read = seen(tmp_path)
    assert read == 1 and found["n0"].record.attempt == "a2", "its name may show an earlier generation"
    node = store(tmp_path).child("n0")
    old = found["n0"].record
    commit(
        node,
        old.model_copy(update={"attempt": "a3", "fingerprint": "0" * 64}),
        HeldFence(tmp_path / "fence"),
        replace=True,
    )
    assert seen(tmp_path)[0]["n0"].record.attempt == "a3"


def test_a_long_record_and_one_without_a_seal_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path)
    path = tmp_path / "runs/tiny/n0/record.json"
    fields = {key: value for key, value in json.loads(path.read_text()).items() if key != SEAL}
    path.write_text(json.dumps({**fields, "schema": 1}))
    long = tmp_path / "runs/tiny/n1/record.json"
    whole = json.loads(long.read_text())
    more = {key: value for key, value in whole.items() if key != SEAL} | {"code": "x" * COPIED_BYTES}
    long.write_bytes(sealed(more))
    renew_copies(store(tmp_path))
    assert set(read_copies(store(tmp_path))) == {"n2", "n3", "n4"} and seen(tmp_path)[1] == 2


def test_a_store_that_takes_no_copies_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: Any) -> int:
        raise StorageError("write", "403")

    monkeypatch.setattr(copying, "renew_copies", refuse)
    go(tmp_path)
    assert seen(tmp_path)[1] == 5 and status(tmp_path).state == "committed"


def test_a_driver_that_fails_leaves_copies_of_what_it_made(tmp_path: Path) -> None:
    def fail(ctx: Any) -> None:
        raise StageError("run n4", "it is broken")

    HOOKS["n4"] = fail
    try:
        with pytest.raises(StageError):
            go(tmp_path)
    finally:
        HOOKS.clear()
    assert set(read_copies(store(tmp_path))) == {"n0", "n1", "n2", "n3"}


@pytest.mark.s3
def test_a_brief_look_passes_over_piles(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitpipe.infra.storage import s3

    monkeypatch.setattr(s3, "PAGE_KEYS", 20)
    monkeypatch.setattr(contents, "PILE_FILES", 20)
    run = open_store(f"{s3_uri}/tiny")
    names = [f"events/{number:020}-1-x.json" for number in range(90)]
    names += [f"net/a1/parts/{number:03}" for number in range(90)]
    names += ["net/a1/attempt.json", "net/a1/logs/driver.log", "net/a2/attempt.json", "net/a2/error.json"]
    names += ["net/record.json", "net/progress.json", "spec.yaml", "more/x/a1/attempt.json", "more/x/record.json"]
    for name in names:
        run.write(name, b"")
    whole, counts = list_run(run), {}
    for brief in (False, True):
        with asked() as counts[brief]:
            found = list_run(run, brief=brief)
        assert found.loose == whole.loose and set(found.nodes) == {"net", "more/x"}
        assert found.of("net").signs.keys() == {"record.json", "progress.json"} and found.of("net").newest == "a2"
        logs = [entry.path for entry in found.of("net").attempts["a1"] if "logs" in entry.path]
        assert logs == ["a1/logs/driver.log"] and len(found.of("net").attempts["a2"]) == 2
    assert sum(counts[False].values()) >= 9 and sum(counts[True].values()) <= 6


def test_status_asks_once_more_for_each_running_node(tmp_path: Path) -> None:
    meeting, asks = threading.Barrier(len(NODES) + 1), []

    def wait(ctx: Any) -> None:
        ctx.progress.update(1, 2)
        ctx.progress.flush()
        meeting.wait(20)
        meeting.wait(20)

    for id in NODES:
        HOOKS[id] = wait
    thread = threading.Thread(target=go, args=(tmp_path,))
    thread.start()
    try:
        meeting.wait(20)
        with asked(tmp_path) as counts:
            found = status(tmp_path)
        asks = [what for what in counts.elements() if "lease" not in what and "stop" not in what]  # the driver's own
    finally:
        meeting.wait(20)
        thread.join()
        HOOKS.clear()
    assert found.state == "running" and [node.why for node in found.nodes] == ["steps 1 of 2"] * 5
    assert sorted(asks) == ["list tiny/", *(f"read n{number}/progress.json" for number in range(5))]


def test_restarting_is_told_until_the_next_ranks_report(tmp_path: Path) -> None:
    seen: list[RunStatus] = []

    def lose(ctx: Any) -> None:
        ctx.progress.update(3, 7, images_per_second=500.0, ranks=[{"rank": 0, "host": "here", "pid": 1}])
        ctx.progress.flush()
        watch = ClusterEvents(ctx.events, ctx.progress)
        watch.emit("note", "nothing happened")
        seen.append(status(tmp_path))
        watch.emit("rank_lost", "rank 1 on gpu-7 was lost (1 of 4)")
        seen.append(status(tmp_path))
        ctx.progress.update(3, 7, images_per_second=500.0, ranks=[{"rank": 0, "host": "here", "pid": 1}])
        ctx.progress.flush()  # a rank that is about to be ended
        seen.append(status(tmp_path))
        ctx.progress.update(2, 7, images_per_second=400.0, ranks=[{"rank": 0, "host": "here", "pid": 2}])
        ctx.progress.flush()
        seen.append(status(tmp_path))

    HOOKS["n0"] = lose
    try:
        go(tmp_path)
    finally:
        HOOKS.clear()
    before, lost, still, again = (next(node for node in one.nodes if node.node == "n0") for one in seen)
    assert before.why == "steps 3 of 7" and before.progress
    for node in (lost, still):
        assert node.state == "running" and node.why.startswith("restarting since 2") and "rank 1 on gpu-7" in node.why
        assert node.progress is None and node.eta_seconds is None and node.ranks == () and node.step == 3
    assert again.why == "steps 2 of 7" and again.progress and again.progress["images_per_second"] == 400.0
    assert status(tmp_path).state == "committed"


def test_a_lost_task_is_no_restart_and_damage_is_told(tmp_path: Path) -> None:
    node = LocalStore(tmp_path)
    progress = StoreProgress(node, "a1", 1)
    progress.lost("before anything was said")
    progress.update(3, 9, "tasks")
    progress.flush()
    progress.lost("task 4 was lost")
    assert node.size(RESTARTING) is None
    node.write(RESTARTING, b"[")
    with pytest.raises(IntegrityError, match=r"restarting\.json"):
        read_restarting(node, read_progress(node) or {})
