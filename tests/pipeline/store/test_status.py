"""What a run's folder tells of it, at every moment of its life and after."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_clock import FakeClock
from tiny_stages import HOOKS, STAGES, tiny_spec, tiny_ways

from vitpipe.infra.errors import DriftError, IntegrityError, StageError, Stopped, UsageError, VitpipeError
from vitpipe.infra.lease_state import LEASE, Holder, LeaseState, Timing, boottime, clock_id, read_lease, request_stop
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.plan.decide import make_plan
from vitpipe.pipeline.plan.survey import survey
from vitpipe.pipeline.store import node_status
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.pulse import LOOKED_S, SILENT_S, Pulse
from vitpipe.pipeline.store.status import read_status, status_of
from vitpipe.stages.sighting import Sighted

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
NODES: dict[str, Any] = {
    "a": {"value": 2}, "b": {}, "sum": {"stage": "add", "needs": {"shards": ("a", "b")}},
    "more": {"needs": {"sources": ("a",)}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    HOOKS.clear()


def go(folder: Path, nodes: dict[str, Any] = NODES, replacing: tuple[str, ...] = ()) -> None:
    run(tiny_spec(folder, nodes), replacing, tiny_ways(timing=QUICK))


def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "runs" / "tiny")


def status(folder: Path, nodes: dict[str, Any] = NODES) -> RunStatus:
    return status_of(store(folder), tiny_spec(folder, nodes).graph)


def states(found: RunStatus) -> dict[str, str]:
    return {node.node: node.state for node in found.nodes}


def test_before_and_after(tmp_path: Path) -> None:
    assert set(states(status(tmp_path)).values()) == {"waiting"}
    go(tmp_path)
    found = status(tmp_path)
    assert found.state == "committed" and set(states(found).values()) == {"committed"}
    promised, added = (
        {"node", "state", "why", "step", "total_steps", "ranks"},
        {"score", "metric", "std", "started", "ended", "seconds", "eta_seconds", "waits"},
    )
    nodes = {node["node"]: node for node in found.to_json()["nodes"]}
    assert all(node.keys() == promised | added for node in nodes.values())
    assert nodes["sum"]["metric"] == "sum" and nodes["sum"]["score"] > 0
    assert nodes["a"]["score"] is None and nodes["a"]["started"] <= nodes["a"]["ended"] and nodes["a"]["seconds"] >= 0


def test_while_it_runs(tmp_path: Path) -> None:
    seen: list[RunStatus] = []

    def look(ctx: Any) -> None:
        ctx.progress.update(3, 7, ranks=[{"rank": 0, "host": "here", "pid": 1}])
        ctx.progress.flush()
        seen.append(status(tmp_path))

    HOOKS["more"] = look
    go(tmp_path)
    node = {node.node: node for node in seen[0].nodes}
    assert seen[0].state == "running" and node["a"].state == "committed"
    assert node["more"].state == "running" and node["more"].why == "steps 3 of 7"
    assert (node["more"].step, node["more"].total_steps, node["more"].ranks[0]["pid"]) == (3, 7, 1)


def test_a_failure_and_what_it_blocks(tmp_path: Path) -> None:
    def fail(ctx: Any) -> None:
        raise StageError("run b", "it is broken", "mend it")

    HOOKS["b"] = fail
    with pytest.raises(StageError):
        go(tmp_path)
    found = status(tmp_path)
    assert found.state == "failed"
    assert states(found) == {"a": "committed", "b": "failed", "sum": "blocked", "more": "committed"}
    assert "it is broken. Mend it." in found.nodes[1].why and "needs b" in found.nodes[2].why
    HOOKS.clear()
    go(tmp_path)
    assert status(tmp_path).state == "committed"


def test_a_stopped_run_says_who_asked(tmp_path: Path) -> None:
    def stop(ctx: Any) -> None:
        request_stop(store(tmp_path), "night falls")
        while not ctx.fence.stopping():
            time.sleep(0.01)

    HOOKS["a"] = stop
    with pytest.raises(Stopped):
        go(tmp_path)
    found = status(tmp_path)
    assert found.state == "stopped" and states(found)["a"] == states(found)["sum"] == "waiting"
    assert "night falls" in found.nodes[0].why


def test_a_driver_that_fell_silent(tmp_path: Path) -> None:
    def fail(ctx: Any) -> None:
        seen.append(store(tmp_path).read(LEASE))
        raise VitpipeError("run a", "killed")

    seen: list[bytes] = []
    HOOKS["a"] = fail
    with pytest.raises(VitpipeError):
        go(tmp_path)
    for path in (tmp_path / "runs" / "tiny").rglob("error.json"):
        path.unlink()  # a killed driver leaves none
    store(tmp_path).write(LEASE, seen[0])
    assert status(tmp_path).state == "running"
    lease = read_lease(store(tmp_path))
    assert lease and lease.holder
    store(tmp_path).write(LEASE, replace(lease, at=boottime() - 100).encode())
    found = status(tmp_path)
    assert found.state == "interrupted" and "last heard of 100 s ago" in found.nodes[0].why
    dead = replace(lease.holder, start_time=0)
    store(tmp_path).write(LEASE, replace(lease, holder=dead).encode())
    assert status(tmp_path).state == "interrupted"


@pytest.mark.parametrize("ahead_s", [-2400, 2400])
@pytest.mark.parametrize("beats", [True, False])
def test_no_wall_clock_of_another_machine_is_believed(tmp_path: Path, ahead_s: float, beats: bool) -> None:
    """A driver whose clock is 40 minutes slow runs, one that died with a clock 40 minutes ahead does not."""
    fake, run = FakeClock(), store(tmp_path)
    lease = LeaseState(1, 0, replace(Holder.me(), boot_id="another"), "another", 1.0, time.time() + ahead_s)
    run.create(LEASE, lease.encode())
    if beats:
        beat = replace(lease, beat=1, at=6.0)
        fake.meanwhile = itertools.chain([lambda: None] * 3, [lambda: run.write(LEASE, beat.encode())])
    graph = tiny_spec(tmp_path, NODES).graph
    found = status_of(run, graph, Pulse(run, clock=fake.clock))
    assert found.state == ("running" if beats else "interrupted")
    assert sum(fake.slept) == (4 if beats else LOOKED_S)
    assert beats or "gave no sign of life for 15 s; run it again" in found.nodes[0].why


def test_who_keeps_looking_waits_for_nothing(tmp_path: Path) -> None:
    fake, run = FakeClock(), store(tmp_path)
    lease = LeaseState(1, 0, replace(Holder.me(), boot_id="another"), "another", 1.0, 0.0)
    run.create(LEASE, lease.encode())
    pulse = Pulse(run, patient=False, clock=fake.clock)
    seen = []
    for second in range(40):
        if second == 10:
            run.write(LEASE, replace(lease, beat=1).encode())
        seen.append(pulse.look().alive)
        fake.now += 1
    assert seen == [True] * 25 + [False] * 15 and fake.slept == []


def test_on_the_drivers_machine_nothing_is_waited_for(tmp_path: Path) -> None:
    fake, run = FakeClock(now=boottime()), store(tmp_path)
    lease = LeaseState(1, 0, replace(Holder.me(), pid_ns="another"), clock_id(), fake.now - 5, 0.0)
    run.create(LEASE, lease.encode())
    assert Pulse(run, clock=fake.clock).look().alive
    fake.now += SILENT_S
    assert not Pulse(run, clock=fake.clock).look().alive and fake.slept == []


def test_while_a_node_is_replaced(tmp_path: Path) -> None:
    go(tmp_path)
    changed = {**NODES, "a": {"value": 5}}
    seen: list[RunStatus] = []
    HOOKS["a"] = lambda ctx: seen.append(status(tmp_path, changed))
    go(tmp_path, changed, ("a",))
    assert states(seen[0]) == {"a": "running", "b": "committed", "sum": "waiting", "more": "waiting"}
    assert status(tmp_path, changed).state == "committed"


def other_data(config: Any, resources: Any, taken: Any, before: Any, digests: bool) -> Sighted:
    return Sighted.other("1 added")


def test_while_a_node_is_made_anew_of_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path)
    monkeypatch.setitem(STAGES, "add", replace(STAGES["add"], look=f"{__name__}:other_data"))
    with pytest.raises(DriftError, match="source: 1 added"):
        go(tmp_path)
    seen: list[RunStatus] = []
    HOOKS["sum"] = lambda ctx: seen.append(status(tmp_path))
    go(tmp_path, replacing=("sum",))
    assert states(seen[0]) == {"a": "committed", "b": "committed", "sum": "running", "more": "committed"}
    assert status(tmp_path).state == "committed"


def test_a_replacement_of_other_data_that_came_to_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(ctx: Any) -> None:
        seen.append(store(tmp_path).read(LEASE))
        raise StageError("run sum", "it is broken", "mend it")

    seen: list[bytes] = []
    go(tmp_path)
    monkeypatch.setitem(STAGES, "add", replace(STAGES["add"], look=f"{__name__}:other_data"))
    HOOKS["sum"] = fail
    with pytest.raises(StageError):
        go(tmp_path, replacing=("sum",))
    found = status(tmp_path)
    assert found.state == "failed" and "it is broken" in found.nodes[2].why
    assert states(found) == {"a": "committed", "b": "committed", "sum": "failed", "more": "committed"}

    store(tmp_path).delete("sum/a2/error.json")  # a killed driver leaves none, and its lease
    lease = LeaseState.decode(seen[0], "")
    assert lease.holder
    store(tmp_path).write(LEASE, replace(lease, holder=replace(lease.holder, start_time=0)).encode())
    found = status(tmp_path)
    assert found.state == "interrupted" and states(found)["sum"] == "waiting"
    assert "a2 was to replace a1" in found.nodes[2].why

    HOOKS.clear()
    go(tmp_path, replacing=("sum",))
    assert status(tmp_path).state == "committed"


def test_an_attempt_that_found_an_equal_record_leaves_its_node_committed(tmp_path: Path) -> None:
    go(tmp_path)
    run = store(tmp_path)
    record = run.read("sum/record.json")
    run.delete("sum/record.json")
    HOOKS["sum"] = lambda ctx: run.write("sum/record.json", record)
    go(tmp_path, replacing=("sum",))
    found = status(tmp_path)
    assert found.state == "committed" and "by a1" in found.nodes[2].why
    assert run.size("sum/a2/attempt.json") and run.read("sum/a2/committed/done") == run.read("sum/a1/committed/done")


def test_a_lost_record_is_told(tmp_path: Path) -> None:
    go(tmp_path)
    run, graph = store(tmp_path), tiny_spec(tmp_path, NODES).graph
    for id, marked, says in (("more", True, "a1 committed one"), ("a", True, "a1 committed one"), ("a", False, "took")):
        kept, mark = run.read(f"{id}/record.json"), run.read(f"{id}/a1/committed/done")
        run.delete(f"{id}/record.json")
        if not marked:
            run.delete(f"{id}/a1/committed/done")
        found = status(tmp_path)
        node = next(node for node in found.nodes if node.node == id)
        assert found.state == node.state == "failed" and says in node.why
        assert f"{id}/record.json: it is damaged: it is lost" in node.why and "verify" in node.why
        planned = make_plan(graph, survey(run, graph)).nodes[id]
        assert (planned.action, planned.reason) == ("blocked", node.why) or not marked
        run.write(f"{id}/record.json", kept)
        run.write(f"{id}/a1/committed/done", mark)
        assert status(tmp_path).state == "committed"


@pytest.mark.parametrize("planned", [True, False])
def test_a_record_that_comes_while_one_looks_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planned: bool
) -> None:
    go(tmp_path)
    run, graph = store(tmp_path), tiny_spec(tmp_path, NODES).graph
    record, real = run.read("sum/record.json"), LocalStore.list
    run.delete("sum/record.json")

    def meanwhile(self: LocalStore, *args: Any) -> Any:
        seen = list(real(self, *args))
        run.write("sum/record.json", record)
        return iter(seen)

    monkeypatch.setattr(LocalStore, "list", meanwhile)
    if planned:
        assert make_plan(graph, survey(run, graph)).nodes["sum"].action == "reuse"
    else:
        assert status(tmp_path).state == "committed"


def test_an_unknown_run_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        read_status(store(tmp_path))


def test_the_graph_is_read_from_the_store(tmp_path: Path) -> None:
    spec = {"version": 1, "name": "tiny", "store": f"file://{tmp_path}/runs", "nodes": {
        "digits": {"stage": "ingest", "config": {"source": {"kind": "digits"}}}}}  # fmt: skip
    store(tmp_path).write("spec.yaml", json.dumps(spec).encode())
    assert states(read_status(store(tmp_path))) == {"digits": "waiting"}


DEEP = (b"[" * 100_000, b'{"a":' + b"[" * 300 + b"]" * 300 + b"}")
DAMAGED = (b"", b"[", b"{}", b"\xff", b'{"time": 1}', *DEEP)
NO_MAPPING = (b"[]", b"null", b'"a"', b"5")
IDLE = "nobody runs it (night falls); run it again"


def test_one_damaged_file_is_told_and_hides_nothing(tmp_path: Path) -> None:
    def fail(ctx: Any) -> None:
        raise StageError("run b", "it is broken", "mend it")

    HOOKS["b"] = fail
    with pytest.raises(StageError):
        go(tmp_path)
    run = store(tmp_path)
    run.write("stop.json", json.dumps({"fence": 1, "reason": "night falls"}).encode())
    whole = status(tmp_path).nodes
    for path, contents, state, why in (
        ("b/progress.json", (*DAMAGED, *NO_MAPPING, b'{"attempt": 1, "fence": 1}'), "waiting", IDLE),
        ("b/a1/attempt.json", (*DAMAGED, *NO_MAPPING), "failed", "it is broken."),
        ("b/a1/error.json", (*DAMAGED, *NO_MAPPING), "waiting", IDLE),
        ("a/record.json", DAMAGED, "failed", "it is damaged"),
    ):
        there = run.read(path)
        for content in contents:
            run.write(path, content)
            found = {node.node: node for node in status(tmp_path).nodes}
            node = found[path.partition("/")[0]]
            assert node.state == state and why in node.why and path in node.why and "damaged" in node.why, content
            reached = ("sum", "more") if path == "a/record.json" else ("sum",)
            assert [found[one.node] for one in whole if one.node not in (node.node, *reached)] == [
                one for one in whole if one.node not in (node.node, *reached)
            ]
        run.write(path, there)
    run.write("a/progress.json", b"[")  # of a node that is done it says nothing any more
    assert status(tmp_path).nodes == whole


@pytest.mark.parametrize("content", [*DAMAGED, *NO_MAPPING])
def test_a_damaged_wish_to_stop_is_told(tmp_path: Path, content: bytes) -> None:
    def stop(ctx: Any) -> None:
        request_stop(store(tmp_path), "night falls")
        while not ctx.fence.stopping():
            time.sleep(0.01)

    HOOKS["a"] = stop
    with pytest.raises(Stopped):
        go(tmp_path)
    store(tmp_path).write("stop.json", content)
    found = status(tmp_path)
    assert found.state == "stopped" and "stop.json: it is damaged" in found.nodes[0].why


@pytest.mark.parametrize("content", [*DAMAGED, *NO_MAPPING, b'{"fence": 1e999, "beat": 0, "holder": null}'])
def test_a_damaged_lease_is_told_by_whoever_goes_by_it(tmp_path: Path, content: bytes) -> None:
    store(tmp_path).write(LEASE, content)
    for ask in (lambda: status(tmp_path), lambda: request_stop(store(tmp_path), "night falls")):
        with pytest.raises(IntegrityError, match=r"lease\.json: it is damaged"):
            ask()


def test_a_damaged_wish_to_stop_ends_no_beat_and_a_later_one_is_heard(tmp_path: Path) -> None:
    def beats_on(ctx: Any) -> None:
        for content in NO_MAPPING:
            store(tmp_path).write("stop.json", content)
            lease = read_lease(store(tmp_path))
            while (now := read_lease(store(tmp_path))) and lease and now.beat < lease.beat + 3:
                assert ctx.fence.stopping() is None
                time.sleep(0.01)
        request_stop(store(tmp_path), "night falls")
        while not ctx.fence.stopping():
            time.sleep(0.01)

    HOOKS["a"] = beats_on
    with pytest.raises(Stopped, match="night falls"):
        go(tmp_path)


@pytest.mark.parametrize(("age", "left"), [(0, 41.0), (30, 11.0), (41, None), (600, None), (-50, 41.0)])
def test_time_to_go_is_counted_down_and_left_out_once_it_is_over(
    age: float, left: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock of who wrote it is ahead."""
    monkeypatch.setattr(node_status, "time", SimpleNamespace(time=lambda: 1_000.0 + age))
    told = {"step": 3, "total": 9, "unit": "trials", "note": "last: x", "eta_seconds": 41, "time": 1_000.0}
    found = node_status.running_status("tuned", told)
    assert (found.why, found.eta_seconds) == ("trial 3 of 9, last: x", left)
    assert node_status.running_status("tuned", told | {"step": 0}).why == "9 trials to do, last: x"
