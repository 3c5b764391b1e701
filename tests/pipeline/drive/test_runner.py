"""Runs from spec to records: order, failures, stops, nothing to do, drift and replacement."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML
from small_disk import small_disk
from tiny_stages import HOOKS, in_process, tiny_spec, tiny_ways

from vitpipe.infra.errors import (
    DriftError,
    IntegrityError,
    LeaseLost,
    Lost,
    StageError,
    Stopped,
    StorageError,
    UsageError,
    VitpipeError,
)
from vitpipe.infra.events import read_events
from vitpipe.infra.lease_state import Timing, read_lease, request_stop
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.drive import runner
from vitpipe.pipeline.drive.lease import hold
from vitpipe.pipeline.drive.runner import Outcome, run
from vitpipe.pipeline.drive.signals import ONE_S
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.stages.seal import sealed

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
CHAIN = {"a": {"value": 2}, "b": {"value": 3}, "sum": {"stage": "add", "needs": {"shards": ("a", "b")}}}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test's hooks or abandoned nodes reach into the next."""
    yield
    HOOKS.clear()
    for thread in threading.enumerate():
        if thread.name.startswith("node-"):
            thread.join()


def go(folder: Path, nodes: dict[str, Any] = CHAIN, replacing: tuple[str, ...] = (), **ways: Any) -> Outcome:
    return run(tiny_spec(folder, nodes), replacing, tiny_ways(timing=QUICK, **ways))


def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "runs" / "tiny")


def records(folder: Path) -> dict[str, bytes]:
    return {entry.path: store(folder).read(entry.path) for entry in store(folder).list() if "record" in entry.path}


def kinds(folder: Path, node: str) -> list[str]:
    return [event.kind for event in read_events(store(folder)) if event.node == node]


def fail(error: Exception) -> Callable[[Any], None]:
    def hook(ctx: Any) -> None:
        raise error

    return hook


def never(*args: Any) -> Any:
    raise AssertionError("the cluster was started")


def test_a_run_commits_every_node_and_gives_the_run_up(tmp_path: Path) -> None:
    heard: list[str] = []
    outcome = go(tmp_path, on_event=lambda event: heard.append(f"{event.node} {event.kind}"))
    assert list(outcome.committed) and outcome.committed["sum"].record.output["value"] == 2 * 2 + 2 * 3
    record = json.loads(store(tmp_path).read("sum/record.json"))
    assert [ref["record_sha256"] for ref in record["inputs"]["shards"]] == [
        outcome.committed[node].sha256 for node in "ab"
    ]
    assert record["schema"] == 2 and record["attempt"] == "a1" and record["estimate"] == {"notes": [], "steps": 1}
    assert record["code"] and record["versions"]["torch"]
    assert read_lease(store(tmp_path)).holder is None  # type: ignore[union-attr]
    assert YAML(typ="safe").load(store(tmp_path).read("spec.yaml")).keys() == CHAIN.keys()
    assert kinds(tmp_path, "sum") == ["started", "committed"]
    assert {"a started", "a committed", "sum committed"} <= set(heard)


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    go(tmp_path)
    before = {entry.path: store(tmp_path).read(entry.path) for entry in store(tmp_path).list()}
    outcome = go(tmp_path, connect=never)
    assert outcome.plan.due == () and outcome.committed["sum"].record.output["value"] == 10
    assert {entry.path: store(tmp_path).read(entry.path) for entry in store(tmp_path).list()} == before


def test_what_is_due_is_told_before_it_begins_and_nothing_where_nothing_is(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []

    def tell(plan: Plan) -> None:
        told.append(tuple(f"{one.node} {one.action}" for one in plan.nodes.values()))
        assert not records(tmp_path)

    go(tmp_path, on_plan=tell)
    go(tmp_path, on_plan=tell, connect=never)
    assert told == [("a run", "b run", "sum run")]


def test_planning_and_running_nothing_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, vitpipe.pipeline.drive.runner, vitpipe.pipeline.store.status; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ray", "torch", "deepspeed", "webdataset", "boto3"} & set(done.stdout.split())
    assert "pydantic" in done.stdout.split()


def test_a_failed_branch_leaves_its_siblings(tmp_path: Path) -> None:
    HOOKS["a"] = fail(StageError("run a", "it is broken"))
    nodes = {**CHAIN, "alone": {"stage": "add", "needs": {"shards": ("b",)}}}
    with pytest.raises(StageError, match="broken"):
        go(tmp_path, nodes)
    assert set(records(tmp_path)) == {"b/record.json", "alone/record.json"}
    assert kinds(tmp_path, "a") == ["started", "failed"] and kinds(tmp_path, "sum") == []
    assert "it is broken" in store(tmp_path).read("a/a1/logs/driver.log").decode()
    del HOOKS["a"]
    outcome = go(tmp_path, nodes)
    assert [planned.node for planned in outcome.plan.due] == ["a", "sum"]
    assert outcome.committed["alone"].record.attempt == "a1" and outcome.committed["a"].record.attempt == "a2"


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([StageError("x"), IntegrityError("x")], 8),
        ([Stopped("x"), StageError("x")], 6),
        ([StageError("x"), LeaseLost("x"), IntegrityError("x")], 5),
        ([StageError("x"), ValueError("a bug")], 1),
    ],
)
def test_the_gravest_cause_decides(tmp_path: Path, errors: list[Exception], code: int) -> None:
    together = threading.Barrier(len(errors))

    def meet(error: Exception) -> Callable[[Any], None]:
        def hook(ctx: Any) -> None:
            together.wait()
            raise error

        return hook

    for number, error in enumerate(errors):
        HOOKS[f"n{number}"] = meet(error)
    with pytest.raises(VitpipeError) as raised:
        go(tmp_path, {f"n{number}": {} for number in range(len(errors))})
    assert raised.value.code == code


def test_a_killed_node_resumes_from_its_pieces(tmp_path: Path) -> None:
    HOOKS["a"] = fail(StageError("run a", "after the first piece"))
    with pytest.raises(StageError):
        go(tmp_path)
    del HOOKS["a"]
    outcome = go(tmp_path)
    assert outcome.plan.nodes["a"].action == "resume"
    assert [file.at for file in outcome.committed["a"].record.files] == [
        "a1/piece-0.json", "a2/piece-1.json", "a2/manifest.json",
    ]  # fmt: skip
    assert kinds(tmp_path, "a") == ["started", "failed", "resumed", "committed"]


def test_a_changed_recipe_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    go(tmp_path)
    before, spec = records(tmp_path), store(tmp_path).read("spec.yaml")
    changed = {**CHAIN, "a": {"value": 5}}
    with pytest.raises(DriftError, match=r"config\.value.* 5.*--replace a"):
        go(tmp_path, changed, connect=never)
    assert records(tmp_path) == before and store(tmp_path).read("spec.yaml") == spec
    assert kinds(tmp_path, "a")[-1] == "drifted" and read_lease(store(tmp_path)).fence == 1  # type: ignore[union-attr]


def test_pieces_of_another_recipe_are_drift_too(tmp_path: Path) -> None:
    HOOKS["a"] = fail(StageError("run a", "after the first piece"))
    with pytest.raises(StageError):
        go(tmp_path)
    HOOKS.clear()
    with pytest.raises(DriftError, match=r"config\.value"):
        go(tmp_path, {**CHAIN, "a": {"value": 5}}, connect=never)
    assert go(tmp_path, {**CHAIN, "a": {"value": 5}}, ("a",)).committed["a"].record.config["value"] == 5


def test_replace_keeps_the_old_records_and_resumes_when_killed(tmp_path: Path) -> None:
    go(tmp_path)
    before, changed = records(tmp_path), {**CHAIN, "a": {"value": 5}}
    HOOKS["a"] = fail(StageError("run a", "killed on the way"))
    with pytest.raises(StageError):
        go(tmp_path, changed, ("a",))
    del HOOKS["a"]
    outcome = go(tmp_path, changed, ("a",))
    assert outcome.plan.nodes["a"].action == "resume" and outcome.committed["sum"].record.output["value"] == 16
    after = records(tmp_path)
    assert set(after) == {f"{node}/record.json" for node in (*"ab", "sum")} | {"a/record.1.json", "sum/record.1.json"}
    assert after["b/record.json"] == before["b/record.json"]
    for node in ("a", "sum"):
        assert after[f"{node}/record.1.json"] == before[f"{node}/record.json"]
    assert go(tmp_path, changed, ("a",), connect=never).plan.due == ()
    assert records(tmp_path) == after


def test_replace_permits_only_what_it_names_and_what_depends_on_it(tmp_path: Path) -> None:
    go(tmp_path)
    with pytest.raises(DriftError, match="a: "):
        go(tmp_path, {**CHAIN, "a": {"value": 5}}, ("b",))
    with pytest.raises(UsageError, match="Did you mean"):
        go(tmp_path, CHAIN, ("bb",))


def test_a_second_driver_ends_with_5_and_writes_nothing(tmp_path: Path) -> None:
    with hold(store(tmp_path), timing=QUICK):
        before = [entry.path for entry in store(tmp_path).list()]
        with pytest.raises(LeaseLost):
            go(tmp_path, connect=never)
        assert [entry.path for entry in store(tmp_path).list()] == before


def test_an_overtaken_driver_commits_nothing(tmp_path: Path) -> None:
    def overtake(ctx: Any) -> None:
        lease = json.loads(store(tmp_path).read("lease.json"))
        lease["fence"], lease["holder"]["id"] = 2, "another"
        store(tmp_path).write("lease.json", json.dumps(lease).encode())

    HOOKS["a"] = overtake
    calm = replace(QUICK, renew_s=3600)  # a beat between our reading and writing would undo the overtaking
    with pytest.raises(LeaseLost):
        run(tiny_spec(tmp_path, {"a": {"pieces": 1}}), (), tiny_ways(calm))
    assert records(tmp_path) == {} and read_lease(store(tmp_path)).fence == 2  # type: ignore[union-attr]


def test_two_drivers_of_one_fence_meet_at_the_attempt(tmp_path: Path) -> None:
    """Whatever let both take the run: the second one's header names another holder, and it ends."""

    def double(ctx: Any) -> None:
        header = json.loads(store(tmp_path).read("a/a1/attempt.json"))
        assert header["holder"] == json.loads(store(tmp_path).read("lease.json"))["holder"]["id"]
        store(tmp_path).write("sum/a1/attempt.json", sealed({**header, "holder": "another"}))

    HOOKS["a"] = double
    with pytest.raises(LeaseLost, match="same fence"):
        go(tmp_path)
    assert "sum/record.json" not in records(tmp_path)
    assert go(tmp_path).committed["sum"].record.attempt == "a2"


def wait_for_stop(ctx: Any) -> None:
    pause = threading.Event()
    while not ctx.fence.stopping():
        pause.wait(0.01)


def test_a_stop_ends_with_6_and_is_resumable(tmp_path: Path) -> None:
    def stopped(ctx: Any) -> None:
        request_stop(store(tmp_path), "somebody asked")
        wait_for_stop(ctx)

    HOOKS["a"] = stopped
    with pytest.raises(Stopped, match=r"(?i)somebody asked"):
        go(tmp_path, {"a": {}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}})
    assert kinds(tmp_path, "a") == ["started", "preempted"] and kinds(tmp_path, "sum") == []
    HOOKS.clear()
    go(tmp_path, {"a": {}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_everybody_to_end(tmp_path: Path, number: signal.Signals) -> None:
    def signalled(ctx: Any) -> None:
        os.kill(os.getpid(), number)
        wait_for_stop(ctx)

    HOOKS["a"] = signalled
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=number.name):
        go(tmp_path)
    assert signal.getsignal(number) is before
    assert json.loads(store(tmp_path).read("stop.json"))["fence"] == 1


def test_asked_twice_it_abandons_what_runs(tmp_path: Path) -> None:
    release, waited = threading.Event(), list[bool]()

    def deaf(ctx: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for_stop(ctx)
        time.sleep(2 * ONE_S)
        os.kill(os.getpid(), signal.SIGTERM)
        waited.append(release.wait(60))

    HOOKS["a"] = deaf
    with pytest.raises(Stopped):
        go(tmp_path)
    assert not waited, "abandoned"
    release.set()
    assert "a/record.json" not in records(tmp_path)


@pytest.mark.parametrize(
    ("error", "asked", "code"),
    [
        (Lost("run 2 ranks of a", "all of them are gone"), True, 6),  # the cluster got the same signal
        (Lost("run 2 ranks of a", "all of them are gone"), False, 4),
        (SystemExit("left the cluster"), True, 6),  # what Ray raises in threads when the driver abandons them
        (SystemExit("left the cluster"), False, 4),
        (StageError("run a", "it is broken"), True, 4),
    ],
)
def test_ranks_lost_while_ending_are_no_failure(tmp_path: Path, error: Exception, asked: bool, code: int) -> None:
    def lose(ctx: Any) -> None:
        if asked:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for_stop(ctx)
        raise error

    HOOKS["a"] = lose
    nodes = {"a": {}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}}
    with pytest.raises(VitpipeError, match="SIGTERM" if code == 6 else "(?i)all of them|left the|broken") as raised:
        go(tmp_path, nodes)
    assert raised.value.code == code
    assert kinds(tmp_path, "a")[-1] == ("preempted" if code == 6 else "failed")
    HOOKS.clear()
    assert go(tmp_path, nodes).plan.nodes["a"].action == "resume"


@pytest.mark.parametrize(("workers", "lent"), [(1, 2), (4, 4), ((1, 3), 3), (40, 8)])
def test_a_laptop_lends_more_cpus_than_it_has_within_reason(
    workers: int | tuple[int, int], lent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    node = SimpleNamespace(resources=SimpleNamespace(workers=workers, cpus_per_worker=1.0))
    spec = SimpleNamespace(graph=SimpleNamespace(nodes={"net": node}))
    plan = SimpleNamespace(due=[SimpleNamespace(node="net")])
    assert runner._cpus_wanted(spec, plan) == lent  # type: ignore[arg-type]


def test_what_does_not_end_is_abandoned_after_the_grace(tmp_path: Path) -> None:
    release = threading.Event()

    def deaf(ctx: Any) -> None:
        request_stop(store(tmp_path), "please")
        release.wait(60)

    HOOKS["a"] = deaf
    with pytest.raises(Stopped, match=r"(?i)please"):
        go(tmp_path, {"a": {}}, stop_grace_s=0.1)
    release.set()


def test_an_artifact_of_another_run_is_used_in_place(tmp_path: Path) -> None:
    go(tmp_path / "first", {"a": {"value": 4}})
    uri = f"file://{tmp_path}/first/runs/tiny/a"
    outcome = go(tmp_path, {"sum": {"stage": "add", "needs": {"shards": (uri,)}}})
    assert outcome.committed["sum"].record.output["value"] == 8
    assert outcome.committed["sum"].record.inputs["shards"][0].uri == uri


def test_a_missing_or_forged_artifact_of_another_run_starts_nothing(tmp_path: Path) -> None:
    go(tmp_path / "first", {"a": {}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}})
    first = f"file://{tmp_path}/first/runs/tiny"
    for uri, error in ((f"{first}/none", UsageError), (f"{first}/sum", UsageError)):  # not there; a Score
        with pytest.raises(error):
            go(tmp_path, {"sum": {"stage": "add", "needs": {"shards": (uri,)}}}, connect=never)
    path = tmp_path / "first/runs/tiny/a/record.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(IntegrityError, match="do not agree"):
        go(tmp_path, {"sum": {"stage": "add", "needs": {"shards": (f"{first}/a",)}}}, connect=never)
    assert not (tmp_path / "runs").exists()


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_written(tmp_path: Path) -> None:
    def dead() -> None:
        raise StorageError("connect to Ray", "no answer")

    with pytest.raises(StorageError):
        go(tmp_path, probe=dead, connect=never)
    assert not (tmp_path / "runs").exists()
    probed: list[str] = []
    go(tmp_path, probe=lambda: probed.append("asked"))
    go(tmp_path, probe=dead)  # there is nothing to do: nobody asks
    assert probed == ["asked"]


def test_a_node_that_cannot_even_begin_says_so(tmp_path: Path) -> None:
    HOOKS["b"] = lambda ctx: store(tmp_path).write("more/a9/attempt.json", b"{")
    with pytest.raises(IntegrityError, match="damaged"):
        go(tmp_path, {"b": {}, "more": {"needs": {"sources": ("b",)}}})
    assert kinds(tmp_path, "more") == ["failed"]


def test_two_drivers_at_once_end_in_one_result(tmp_path: Path) -> None:
    """One of them runs; the other sees that it moves, or comes after it and finds nothing to do."""
    ends: list[object] = []

    def drive() -> None:
        try:
            ends.append(go(tmp_path, connect=in_process).committed["sum"].sha256)
        except LeaseLost:
            ends.append(5)

    threads = [threading.Thread(target=drive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = {end for end in ends if end != 5}
    assert len(ends) == 3 and len(won) == 1


@pytest.mark.parametrize("spare", [True, False])
def test_a_store_that_stays_full_leaves_its_reason_and_the_run(
    spare: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the room that is held for it. Negative control: without, there is none, and the run is left held."""
    if not spare:
        monkeypatch.setattr("vitpipe.infra.storage.spare.SpareRoom.take", lambda self: None)
    heard: list[str] = []
    with small_disk(tmp_path / "runs", "2m") as disk:
        HOOKS["sum"] = lambda ctx: disk.fill()

        def hear(event: Any) -> None:
            heard.append(f"{event.node} {event.kind}")
            if not spare and "sum failed" in heard:
                disk.fill()  # a file that was being written then may have gone since

        with pytest.raises(StorageError, match="No space left") as ended:
            go(tmp_path, on_event=hear)
        assert ended.value.code == 7 and str(disk.path) in str(ended.value)
        assert "sum failed" in heard, "the terminal is told, whatever the store takes"
        lease = read_lease(store(tmp_path))
        assert lease and (lease.holder is None) is spare
        assert ("failed" in kinds(tmp_path, "sum")) is spare
        assert store(tmp_path).size("sum/a1/error.json") is not None or not spare
        if not spare:
            return
        disk.make_room()
        HOOKS.clear()
        assert go(tmp_path).committed["sum"].record.attempt == "a2"
        assert not [path for path in disk.path.rglob(".*") if path.is_file() and "lock" not in path.name]
