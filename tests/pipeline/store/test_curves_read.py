"""Curves read from the store alone: what is asked, what is asked again, and what stands in where none were kept."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from inprocess import commit, make_context
from tiny_stages import HOOKS, tiny_spec, tiny_ways

from vitpipe.infra.curves import CURVES, CurvePoint, Gathered, LiveCurves, part_path
from vitpipe.infra.errors import StageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.drive import runner
from vitpipe.pipeline.store.curves import CurveReader, NodeCurves
from vitpipe.pipeline.store.followed import FollowedRun, Look
from vitpipe.pipeline.store.node_status import NodeStatus, RunStatus
from vitpipe.pipeline.store.runs import Run
from vitpipe.pipeline.store.status import status_of
from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import StageContext

NODES = {"a": {}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}}


@pytest.fixture(autouse=True)
def hooks() -> object:
    yield
    HOOKS.clear()


def leaves(*values: float) -> object:
    """A hook that leaves these losses as the node's curve."""

    def hook(ctx: StageContext) -> None:
        live = LiveCurves(ctx.out.node, ctx.out.attempt)
        for step, value in enumerate(values, 1):
            live.add(step, {"train/loss": value}, float(step), told=False)
        live.tell()
        live.settle(20)

    return hook


def go(folder: Path, nodes: Any = NODES, replacing: tuple[str, ...] = ()) -> None:
    runner.run(tiny_spec(folder, nodes), replacing, tiny_ways())


def look(folder: Path) -> Look:
    return FollowedRun(Run("tiny", open_store(f"file://{folder}/runs/tiny"))).look()


def curves(folder: Path, nodes: Any = NODES) -> dict[str, NodeCurves]:
    run = open_store(f"file://{folder}/runs/tiny")
    return CurveReader(run).read(status_of(run, tiny_spec(folder, nodes).graph))


def values(found: dict[str, NodeCurves], node: str = "a") -> list[float]:
    return [point.value for point in found[node].lines.get("", {}).get("train/loss", ())]


def test_of_a_run_that_is_done(tmp_path: Path) -> None:
    HOOKS["a"] = leaves(3.0, 2.0, 1.0)  # type: ignore[assignment]
    go(tmp_path)
    assert values(curves(tmp_path)) == [3.0, 2.0, 1.0] and values(curves(tmp_path), "sum") == []


def test_another_recipe_does_not_inherit_points_and_a_resume_keeps_them(tmp_path: Path) -> None:
    HOOKS["a"] = both(leaves(3.0, 2.0), fails)
    with pytest.raises(StageError):
        go(tmp_path)
    assert values(curves(tmp_path)) == [3.0, 2.0], "of an attempt that failed"
    HOOKS["a"] = fails
    with pytest.raises(StageError):
        go(tmp_path)  # takes up what the first left
    assert values(curves(tmp_path)) == [3.0, 2.0]
    changed = {**NODES, "a": {"value": 5}}
    with pytest.raises(StageError):
        go(tmp_path, changed, ("a",))
    assert values(curves(tmp_path, changed)) == [], "those were of another recipe"


def both(*hooks: Any) -> Any:
    return lambda ctx: [hook(ctx) for hook in hooks]


def fails(ctx: StageContext) -> None:
    raise StageError("make it", "it broke", "mend it")


def test_before_a_spec_is_accepted_and_when_it_cannot_be_read(tmp_path: Path) -> None:
    run = open_store(f"file://{tmp_path}/runs/tiny")
    assert look(tmp_path).state == "begun" and look(tmp_path).lasts
    run.write("spec.yaml", b"\xff")
    assert look(tmp_path).state == "unreadable" and "spec.yaml" in look(tmp_path).why


def test_a_damaged_curve_is_named_and_hides_no_other(tmp_path: Path) -> None:
    HOOKS["a"] = HOOKS["sum"] = leaves(1.0)  # type: ignore[assignment]
    go(tmp_path)
    open_store(f"file://{tmp_path}/runs/tiny/a").write(CURVES, b"{")
    found = curves(tmp_path)
    assert CURVES in found["a"].note and values(found, "sum") == [1.0]


def test_a_look_asks_for_one_listing_and_for_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_store(f"file://{tmp_path}/runs/tiny")
    states = ["running"] * 3 + ["waiting"] * 57
    status = RunStatus(run.uri, "running", tuple(NodeStatus(f"n{at}", state, "") for at, state in enumerate(states)))  # type: ignore[arg-type]
    for node in status.nodes[:3]:
        run.child(node.node).write(CURVES, one_point(1.0))
    asked = counted(monkeypatch)
    reader = CurveReader(run)
    assert len([one for one in reader.read(status).values() if one.lines]) == 3
    assert asked == {"list": 1, "read": 3}
    asked.clear()
    run.child("n1").write(CURVES, one_point(2.0))
    assert values(reader.read(status), "n1") == [2.0]
    assert asked == {"list": 1, "read": 1}


def one_point(value: float) -> bytes:
    gathered = Gathered()
    gathered.add(1, {"train/loss": value})
    return gathered.encode("a1")


def test_tasks_that_run_leave_theirs_beside_and_only_changed_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_store(f"file://{tmp_path}/runs/tiny")
    node = run.child("tune")
    done = Gathered()
    done.add(2, {"train/loss": 0.5}, of="one")
    node.write(CURVES, done.encode("a1", has_parts=True))
    for name, value in (("one", 9.0), ("two", 2.0)):  # the first has ended: its own is of before
        part = Gathered()
        part.add(1, {"train/loss": value}, of=name)
        node.write(part_path("a1", name), part.encode("a1"))
    status = RunStatus(run.uri, "running", (NodeStatus("tune", "running", ""),))
    reader = CurveReader(run)
    asked = counted(monkeypatch)
    wanted = {"one": (CurvePoint(2, 0.0, 0.5),), "two": (CurvePoint(1, 0.0, 2.0),)}
    assert {of: tags["train/loss"] for of, tags in reader.read(status)["tune"].lines.items()} == wanted
    assert asked == {"read": 2, "list": 1}, "the node's own, and the one that has not ended"
    asked.clear()
    assert {of: tags["train/loss"] for of, tags in reader.read(status)["tune"].lines.items()} == wanted
    assert asked == {"list": 1}, "what did not change is not read again"


def test_where_none_were_kept_the_artifact_says_the_same(tmp_path: Path) -> None:
    ctx = make_context(tmp_path, "tune", None)
    outcome = (
        b'{"trial": "test-lr0.1-seed0", "accuracy": 0.5, "loss": 1.0, "num_scored": 4, "num_train": 4, "steps": 2,'
    )
    file = ctx.out.put("trials/test-lr0.1-seed0.json", outcome + b'"losses": [2.0, 1.5]}')
    commit(ctx, Score(files=(file,), benchmark="b", metric="top1", value=0.5, per_seed=(0.5,), num_test=4))
    status = RunStatus(ctx.out.node.uri, "committed", (NodeStatus("tune", "committed", ""),))
    run = open_store(f"file://{tmp_path}/store/test")
    found = CurveReader(run).read(status)["tune"].lines["test-lr0.1-seed0"]
    assert [point.value for point in found["train/loss"]] == [2.0, 1.5]
    assert [(point.step, point.value) for point in found["test/accuracy"]] == [(2, 0.5)]


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is asked of a folder from now on; of records there are none here."""
    asked: Counter[str] = Counter()
    for name in ("read", "read_version", "size", "list", "folders"):
        real = getattr(LocalStore, name)

        def count(self: LocalStore, *args: object, real=real, name=name, **more: object) -> object:
            asked[name] += 1
            return real(self, *args, **more)

        monkeypatch.setattr(LocalStore, name, count)
    return asked
