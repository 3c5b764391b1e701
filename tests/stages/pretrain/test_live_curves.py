"""The live curve of a pretraining: what the artifact will say, in the store before any commit, and in nobody's way."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import synthetic
from inprocess import commit
from tiny_pretraining import StopsAt, context, pretrain, recipe

from vitpipe.infra import curves
from vitpipe.infra.curves import CURVES, Lines, parse
from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.contract import StageContext
from vitpipe.stages.training.measure import metrics_log

EVERY = {"evaluate": {"every": "4 steps", "eval_resize": "squash"}}


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path)


@dataclass
class FailsAt(StopsAt):
    """A fence that breaks at the n-th question: nothing is committed then."""

    def stopping(self) -> str | None:
        if super().stopping():
            raise RuntimeError("the power went")
        return None


def lines(ctx: StageContext, made: Checkpoint, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ctx.out.node.read(made.file(name).at).splitlines()]


def live(ctx: StageContext) -> curves.Curves:
    return parse(ctx.out.node.read(CURVES))


def of_artifact(ctx: StageContext, made: Checkpoint) -> Lines:
    found = metrics_log.points(lines(ctx, made, "metrics.jsonl"), lines(ctx, made, "evaluation.jsonl"))
    return curves.thinned(("", step, clock, values) for step, clock, values in found)


def steps(ctx: StageContext, tag: str = "train/loss") -> list[int]:
    return [point.step for point in live(ctx).lines[""][tag]]


def test_it_agrees_with_what_is_committed_to_the_last_bit(tmp_path: Path, shards: ShardSet) -> None:
    # a second to import, and only this needs it
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ctx = context(tmp_path)
    made = commit(ctx, pretrain(recipe(**EVERY), ctx, shards))
    assert live(ctx).lines == of_artifact(ctx, made)  # type: ignore[arg-type]
    assert live(ctx).attempt == "a1" and steps(ctx) == list(range(1, 11))
    assert steps(ctx, "validation/accuracy") == [4, 8, 10]
    losses = [float.fromhex(line["loss_hex"]) for line in lines(ctx, made, "metrics.jsonl")]  # type: ignore[arg-type]
    assert [point.value for point in live(ctx).lines[""]["train/loss"]] == losses
    for file in made.files:
        if "tfevents" in file.path:
            made.fetch(file.path, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(live(ctx).lines[""])
    for tag, line in live(ctx).lines[""].items():
        shown = [(one.step, one.wall_time, one.value) for one in events.Scalars(tag)]
        assert shown == [(point.step, point.clock, pytest.approx(point.value, rel=1e-6)) for point in line]


def test_a_resume_replaces_the_points_that_it_makes_again(tmp_path: Path, shards: ShardSet) -> None:
    broken = context(tmp_path, fence=FailsAt(7))
    with pytest.raises(RuntimeError, match="the power went"):
        pretrain(recipe(**EVERY), broken, shards)
    assert max(steps(broken)) > 3, "points beyond the last commit are there, or nothing is shown here"
    again = context(tmp_path, "a2", ("a1",))
    made = commit(again, pretrain(recipe(**EVERY), again, shards))
    assert live(again).attempt == "a2" and steps(again) == list(range(1, 11))
    assert live(again).lines == of_artifact(again, made)  # type: ignore[arg-type]
    assert [point.clock for point in live(again).lines[""]["train/loss"]] == sorted(
        point.clock for point in live(again).lines[""]["train/loss"]
    )


def test_a_store_that_refuses_it_changes_no_step(
    tmp_path: Path, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, refused = context(tmp_path, node="plain"), context(tmp_path, node="refused")
    wanted = lines(plain, pretrain(recipe(), plain, shards), "metrics.jsonl")
    write, asked = LocalStore.write, []

    def refuses(self: LocalStore, path: str, data: bytes) -> Any:
        if path == CURVES:
            asked.append(path)
            raise StorageError("write", "the store is down", "wait")
        return write(self, path, data)

    monkeypatch.setattr(LocalStore, "write", refuses)
    found = lines(refused, pretrain(recipe(), refused, shards), "metrics.jsonl")
    assert asked and [one["loss_hex"] for one in found] == [one["loss_hex"] for one in wanted]
