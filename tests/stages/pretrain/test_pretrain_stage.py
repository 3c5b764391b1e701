"""Pretraining on one rank in this process: what it leaves, how it stops, goes on and fails."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from inprocess import commit, make_context
from tiny_pretraining import context, pretrain, recipe
from torch import Tensor

from vitpipe.infra.errors import IntegrityError, LeaseLost, StageError, Stopped, UsageError
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.training.engine import Engine


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path)


def curve(ctx: StageContext, made: Checkpoint) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their times."""
    lines = [json.loads(line) for line in ctx.out.node.read(made.file("metrics.jsonl").at).splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@dataclass(frozen=True)
class ToldAt:
    """A fence that speaks at its n-th question, one question a step."""

    step: int
    lost: bool = False

    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        asked[self] = asked.get(self, 0) + 1
        if asked[self] < self.step:
            return None
        if self.lost:
            raise LeaseLost("go on", "the other holds the run", "")
        return "SIGTERM"


asked: dict[ToldAt, int] = {}


@pytest.fixture(autouse=True)
def nobody_was_asked() -> None:
    asked.clear()


def test_a_pretraining_leaves_a_whole_checkpoint(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path)
    made = pretrain(recipe(), ctx, shards)
    assert (made.step, made.samples_seen, made.folder) == (10, 240, "step-10")
    assert made.shards_sha256 == (shards.manifest_sha256,)
    lines = curve(ctx, made)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["samples_seen"] for line in lines] == list(range(24, 241, 24))
    assert all(float.fromhex(line["loss_hex"]) == line["loss"] for line in lines)
    stored = commit(ctx, made)
    assert stored.read_json("labels.json") == {"id2label": {"0": "red", "1": "green", "2": "blue"}}
    assert stored.read_json("step-10/manifest.json")["sha256"]
    assert stored.read_json("step-10/model.json")["settings"]["classes"] == 3
    for file in stored.files:  # every file is where the artifact says, and what it says
        assert stored.read(file.path)
    assert any("tfevents" in file.path for file in stored.files)


def test_a_sigmoid_is_told_beside_the_labels_and_converted_with_them(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path)
    trained = commit(ctx, pretrain(recipe(total="1 steps", objective={"kind": "sigmoid"}), ctx, shards))
    ctx = make_context(tmp_path, "weights", ConvertResources())
    weights = commit(ctx, convert(ConvertConfig(formats=("native",)), Inputs({"checkpoint": (trained,)}), ctx))
    told = {"id2label": {"0": "red", "1": "green", "2": "blue"}, "objective": "sigmoid"}
    assert trained.read_json("labels.json") == weights.read_json("labels.json") == told


def test_the_loss_falls(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path)
    lines = curve(ctx, pretrain(recipe(total="40 steps"), ctx, shards))
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]


def test_metrics_and_progress_are_reported(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path)
    made = pretrain(recipe(), ctx, shards)
    last = ctx.progress.updates[-1]  # type: ignore[attr-defined]
    assert (last["step"], last["total"]) == (10, 10)
    assert last["ranks"][0]["rank"] == 0
    assert ctx.metrics.values["samples_seen"] == 240  # type: ignore[attr-defined]
    assert made.metrics["loss"] == curve(ctx, made)[-1]["loss"]


def test_old_checkpoints_go_and_the_newest_stay(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path, keep=2)
    pretrain(recipe(), ctx, shards)
    steps = {entry.path.split("/")[1] for entry in ctx.out.node.list("a1/step-")}
    assert steps == {"step-9", "step-10"}
    assert len(ctx.events.of("checkpoint_committed")) == 4  # type: ignore[attr-defined]


def test_a_stop_commits_and_the_next_attempt_goes_on_as_if_nothing_was(tmp_path: Path, shards: ShardSet) -> None:
    whole = context(tmp_path, node="whole")
    wanted = curve(whole, pretrain(recipe(), whole, shards))
    with pytest.raises(Stopped, match=r"SIGTERM; step 5 is committed"):
        pretrain(recipe(), context(tmp_path, fence=ToldAt(4)), shards)
    again = context(tmp_path, "a2", ("a1",))
    assert curve(again, pretrain(recipe(), again, shards)) == wanted
    assert "from step 5 of attempt a1" in again.events.of("resumed")[0]  # type: ignore[attr-defined]


def test_a_finished_run_without_a_record_only_builds_its_artifact(tmp_path: Path, shards: ShardSet) -> None:
    first = context(tmp_path)
    wanted = curve(first, pretrain(recipe(), first, shards))
    first.out.node.delete("a1/committed/step-10")  # killed between the manifest and its mark
    again = context(tmp_path, "a2", ("a1",))
    made = pretrain(recipe(), again, shards)
    assert curve(again, made) == wanted
    assert made.file("step-10/manifest.json").at.startswith("a1/")
    assert not list(again.out.node.list("a2/step-"))
    assert first.out.node.size("a1/committed/step-10") is not None, "it would not be missed if it were lost"


def test_a_lost_lease_ends_training_without_a_checkpoint(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path, fence=ToldAt(2, lost=True))
    with pytest.raises(LeaseLost):
        pretrain(recipe(), ctx, shards)
    assert not list(ctx.out.node.list("a1/step-"))


def test_losses_that_stay_not_finite_fail_and_name_the_images(tmp_path: Path, shards: ShardSet) -> None:
    wild = recipe(
        optimizer={"kind": "sgd", "peak_lr": 1e30, "clip_norm": None},
        schedule={"kind": "constant", "warmup": "3 steps"}, total="20 steps",
    )  # fmt: skip
    ctx = context(tmp_path, checkpoint_every="1 steps")
    with pytest.raises(StageError, match=r"loss of nan for images at positions \d+\.\..* 8 steps in a row"):
        pretrain(wild, ctx, shards)
    told = ctx.events.of("step_skipped")  # type: ignore[attr-defined]
    assert len(told) == 7 and re.match(r"step (3|4): a loss of nan for images at positions (48|72)\.\.", told[0])
    assert re.search(r"order; \S+, \S+", told[0])  # the first keys
    kept = torch.tensor([int(entry.path.split("/")[1].split("-")[1]) for entry in ctx.out.node.list("a1/step-")])
    assert kept.max() <= 3  # the last good checkpoint stands, and none came after


def test_damaged_checkpoints_fall_back_and_none_left_is_an_error(tmp_path: Path, shards: ShardSet) -> None:
    first = context(tmp_path)
    wanted = curve(first, pretrain(recipe(), first, shards))
    node = first.out.node
    state = "a1/step-10/state/weights-00000.safetensors"
    node.write(state, node.read(state)[:-1] + b"!")
    second = context(tmp_path, "a2", ("a1",))
    assert curve(second, pretrain(recipe(), second, shards)) == wanted
    refused = second.events.of("checkpoint_refused")  # type: ignore[attr-defined]
    assert refused[0].startswith("attempt a1, step 10, file state/weights-00000.safetensors")
    for entry in list(node.list("a")):
        if entry.path.endswith("metrics.jsonl"):
            node.write(entry.path, b"")
    with pytest.raises(IntegrityError, match="none of the 4 committed steps is whole"):
        pretrain(recipe(), context(tmp_path, "a3", ("a2", "a1")), shards)


def test_init_takes_the_parameters_and_nothing_else(tmp_path: Path, shards: ShardSet) -> None:
    still = recipe(
        model=recipe().model.model_copy(update={"dropout": 0.0, "stochastic_depth": 0.0}), total="1 steps",
        augment={"crop": "none", "flip": False},
    )  # fmt: skip
    settings = still.model
    given = synthetic.weights(tmp_path, settings=settings, classes=3)
    plain, started = context(tmp_path, node="plain"), context(tmp_path, node="started")
    without = curve(plain, pretrain(still, plain, shards))[0]["loss"]
    with_init = curve(started, pretrain(still, started, shards, init=given))[0]["loss"]
    assert without == pytest.approx(torch.tensor(3.0).log().item())  # a zero head knows nothing
    assert with_init != pytest.approx(without, rel=1e-3)


def test_init_with_a_head_of_other_classes_is_refused(tmp_path: Path, shards: ShardSet) -> None:
    given = synthetic.weights(tmp_path, settings=recipe().model, classes=5)
    with pytest.raises(UsageError, match=r"head has 5 classes, the shards and config\.model make 3"):
        pretrain(recipe(), context(tmp_path), shards, init=given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total": "0.1 epochs"}, "60 images an epoch make less than one step of batch_images 24"),
        ({"batch_images": 20}, r"batch_images 20 is not a multiple of micro_batch 8: 20 = 2 x 8 \+ 4"),
        ({"schedule": {"warmup": "5 epochs"}}, "schedule is longer than the run: warmup 12"),
        ({"model": {**recipe().model.model_dump(), "classes": 2}}, r"labels 0\.\.2"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(
    tmp_path: Path, shards: ShardSet, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain(recipe(**changes), context(tmp_path), shards)


def test_shards_without_a_train_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images to train on"):
        pretrain(recipe(), context(tmp_path), synthetic.shards(tmp_path, "odd", counts={"test": 4}))


def test_what_goes_wrong_says_in_which_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, made = Engine.step, list[float]()

    def breaking(self: Engine, lr: float) -> Tensor:
        made.append(lr)
        if len(made) == 4:
            raise ValueError("a bug")
        return step(self, lr)

    monkeypatch.setattr(Engine, "step", breaking)
    with pytest.raises(ValueError, match="a bug") as caught:
        pretrain(recipe(), context(tmp_path), synthetic.shards(tmp_path))
    assert caught.value.__notes__ == ["in step 4"]
