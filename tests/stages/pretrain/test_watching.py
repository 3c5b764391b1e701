"""What is seen of a pretraining while it goes on: measurements, ledger, where the time went. None of it moves it."""

import itertools
import json
import math
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import synthetic
import torch
from inprocess import commit, make_context
from tiny_pretraining import RECIPE, StopsAt, context, pretrain, recipe
from torch.nn import functional as F

from vitpipe.infra.errors import Stopped, UsageError
from vitpipe.stages.artifacts import Artifact, Checkpoint, ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.pretrain.config import check_inputs
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure import metrics_log
from vitpipe.stages.training.objective.losses import softmax
from vitpipe.stages.training.skipping import Skips
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.native import load_weights

MIXED = {"augment": {"crop": "none", "mixup": 0.2}, "model": {**RECIPE["model"], "pool": "gap"}}
EVERY = {"evaluate": {"every": "4 steps", "fewshot": {"shots": [2, 5], "seeds": [0, 1], "eval_resize": "squash"},
                      "eval_resize": "squash"}}  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path)


@pytest.fixture
def probe(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path, "probe", ("one", "two"), {"train": 40, "test": 25}, noise=150)


def lines(ctx: StageContext, made: Checkpoint, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ctx.out.node.read(made.file(name).at).splitlines()]


def losses(ctx: StageContext, made: Checkpoint) -> list[str]:
    return [line["loss_hex"] for line in lines(ctx, made, "metrics.jsonl")]


@pytest.mark.parametrize("changes", [MIXED, {"objective": {"kind": "masked_patch"}}], ids=["mixup", "masked"])
def test_measuring_leaves_the_trajectory_as_it_is(
    tmp_path: Path, shards: ShardSet, probe: ShardSet, changes: dict[str, Any]
) -> None:
    plain, seen = context(tmp_path, node="plain"), context(tmp_path, node="seen")
    wanted = pretrain(recipe(**changes), plain, shards)
    found = pretrain(recipe(**changes, **EVERY), seen, shards, probes=probe)
    assert losses(seen, found) == losses(plain, wanted)
    assert [line["step"] for line in lines(seen, found, "evaluation.jsonl")] == [4, 8, 10]
    assert not any(file.path.endswith("evaluation.jsonl") for file in wanted.files)


def test_the_comparison_can_fail(tmp_path: Path, shards: ShardSet) -> None:
    """Negative control: a measurement that forgets to turn dropout on again."""

    @contextmanager
    def forgetful(engine: Engine, method: str = "forward") -> Any:
        engine._engine.module.eval()
        with torch.no_grad():
            yield

    plain, seen = context(tmp_path, node="plain"), context(tmp_path, node="seen")
    wanted = losses(plain, pretrain(recipe(), plain, shards))
    with mock.patch.object(Engine, "evaluating", forgetful):
        found = losses(seen, pretrain(recipe(**EVERY), seen, shards))
    assert found[:4] == wanted[:4] and found[4:] != wanted[4:]


def test_what_is_measured_is_what_the_weights_score_afterwards(
    tmp_path: Path, shards: ShardSet, probe: ShardSet
) -> None:
    ctx = context(tmp_path)
    made = pretrain(recipe(**EVERY), ctx, shards, probes=probe)
    check_measured(tmp_path, commit(ctx, made), lines(ctx, made, "evaluation.jsonl")[-1], shards, probe)
    assert [text for text in ctx.events.of("evaluated") if "probe 2-shot" in text]  # type: ignore[attr-defined]


def test_two_ranks_at_zero_3_do_all_of_this_too(tmp_path: Path, shards: ShardSet, probe: ShardSet) -> None:
    """30 and 25 images on two ranks of micro-batches of 8: shares of another number of batches."""
    plain = context(tmp_path, node="plain", workers=2, zero=3)
    seen = context(tmp_path, node="seen", workers=2, zero=3, ledger=True)
    alone = context(tmp_path, node="alone", ledger=True)
    wanted = losses(plain, pretrain(recipe(), plain, shards))
    made = pretrain(recipe(**EVERY), seen, shards, probes=probe)
    assert losses(seen, made) == wanted
    check_measured(tmp_path, commit(seen, made), lines(seen, made, "evaluation.jsonl")[-1], shards, probe)
    by_one_rank = pretrain(recipe(), alone, shards)
    assert lines(seen, made, "ledger.jsonl") == lines(alone, by_one_rank, "ledger.jsonl")


def check_measured(tmp_path: Path, trained: Artifact, last: dict[str, Any], shards: ShardSet, probe: ShardSet) -> None:
    weights = _native(tmp_path, trained)
    settings, state = load_weights(weights, tmp_path / "weights")
    model = build_model(settings).eval()
    model.load_state_dict(state)
    images = EvalImages(shards, "test", 16, "squash", tmp_path / "cache")
    batches = list(images.batches(30))
    with torch.inference_mode():
        logits = torch.cat([model(batch.images_BCHW) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    assert last["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert last["accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())

    wanted = EvaluateConfig(method="fewshot", shots=(2, 5), seeds=(0, 1), eval_resize="squash", antialias=True)
    scoring = make_context(tmp_path, "score", EvaluateResources())
    score = evaluate(wanted, Inputs({"data": (probe,), "weights": (weights,)}), scoring)
    by_shots = json.loads(scoring.out.node.read(score.file("score.json").at))["by_shots"]
    found = last["fewshot"]["probe"]
    assert found == {shots: pytest.approx(float(np.mean(values))) for shots, values in by_shots.items()}
    assert "short_classes" not in last, "every class has enough"


def _native(tmp_path: Path, trained: Artifact) -> Artifact:
    ctx = make_context(tmp_path, "weights", ConvertResources())
    return commit(ctx, convert(ConvertConfig(formats=("native",)), Inputs({"checkpoint": (trained,)}), ctx))


def test_measurements_stand_once_after_a_resume_and_a_missing_one_is_made_up(
    tmp_path: Path, shards: ShardSet, probe: ShardSet
) -> None:
    whole = context(tmp_path, node="whole")
    wanted = lines(whole, pretrain(recipe(**EVERY), whole, shards, probes=probe), "evaluation.jsonl")
    with pytest.raises(Stopped, match="step 8 is committed"):  # while it was to be measured, it had to hurry
        pretrain(recipe(**EVERY), context(tmp_path, fence=StopsAt(7)), shards, probes=probe)
    again = context(tmp_path, "a2", ("a1",))
    assert lines(again, pretrain(recipe(**EVERY), again, shards, probes=probe), "evaluation.jsonl") == wanted


def test_tensorboard_has_the_measurements_too(tmp_path: Path, shards: ShardSet, probe: ShardSet) -> None:
    # a second to import, and only this needs it
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ctx = context(tmp_path)
    made = commit(ctx, pretrain(recipe(**EVERY), ctx, shards, probes=probe))
    for file in made.files:
        if "tfevents" in file.path:
            made.fetch(file.path, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "validation/loss", "validation/accuracy", "fewshot/probe/5"} <= set(events.Tags()["scalars"])
    assert [one.step for one in events.Scalars("validation/loss")] == [4, 8, 10]
    assert len(events.Scalars("train/loss")) == 10


def test_there_has_to_be_something_to_measure(tmp_path: Path, shards: ShardSet) -> None:
    probe = synthetic.shards(tmp_path, "probe", ("one", "two"), {"train": 9, "val": 25}, noise=150)
    alone = synthetic.shards(tmp_path, "alone", counts={"train": 30})
    with pytest.raises(UsageError, match="no probes are given"):
        pretrain(recipe(**EVERY), context(tmp_path), alone)
    ctx = context(tmp_path, node="probed")
    last = lines(ctx, pretrain(recipe(**EVERY), ctx, alone, probes=probe), "evaluation.jsonl")[-1]
    assert "loss" not in last and set(last["fewshot"]["probe"]) == {"2", "5"}, "val where the probe has no test"
    assert last["short_classes"] == {"probe": {"5": 1}} and len(set(last["fewshot"]["probe"])) == 2
    with pytest.raises(UsageError, match="no split test"):
        pretrain(recipe(**EVERY), context(tmp_path), shards, probes=alone)
    bare, probed = {"shards": 1}, {"shards": 1, "probes": 2}
    assert check_inputs(recipe(), probed) and check_inputs(recipe(**EVERY), bare)
    assert not check_inputs(recipe(**EVERY), probed) and not check_inputs(recipe(), bare)


def test_the_ledger_names_every_image_once_an_epoch(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path, ledger=True)
    found = lines(ctx, pretrain(recipe(), ctx, shards), "ledger.jsonl")
    assert [line["step"] for line in found] == list(range(1, 11))
    consumed = [key for line in found for key in line["keys"]]  # 240 images: four epochs of 60
    assert len(consumed) == 240
    assert set(Counter(consumed).values()) == {4} and len(set(consumed[:60])) == 60


def test_the_ledger_stands_once_after_a_resume_also_one_that_was_asked_for_late(
    tmp_path: Path, shards: ShardSet
) -> None:
    whole = context(tmp_path, node="whole", ledger=True)
    wanted = lines(whole, pretrain(recipe(), whole, shards), "ledger.jsonl")
    for node, ledger in (("kept", True), ("late", False)):
        with pytest.raises(Stopped):
            pretrain(recipe(), context(tmp_path, fence=StopsAt(4), node=node, ledger=ledger), shards)
        again = context(tmp_path, "a2", ("a1",), node=node, ledger=True)
        assert lines(again, pretrain(recipe(), again, shards), "ledger.jsonl") == wanted
    without = context(tmp_path, node="without")
    assert not any("ledger" in file.path for file in pretrain(recipe(), without, shards).files)


def test_a_skipped_step_is_written_down_and_is_no_checkpoint(tmp_path: Path, shards: ShardSet) -> None:
    """The third step, after which one is due, has a loss that is not a number in its second micro-batch."""
    calls = itertools.count()

    def spoiled(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses_B = softmax(outputs, labels)
        return losses_B * math.nan if next(calls) == 7 else losses_B

    ctx = context(tmp_path, ledger=True)
    with mock.patch("vitpipe.stages.pretrain.rank.loss_fn", lambda objective: spoiled):
        made = pretrain(recipe(), ctx, shards)
    curve, ledger = lines(ctx, made, "metrics.jsonl"), lines(ctx, made, "ledger.jsonl")
    assert [line["step"] for line in curve if "skipped" in line] == [3]
    assert [line["step"] for line in ledger if "skipped" in line] == [3]
    bad = curve[2]
    assert (bad["loss"], bad["grad_norm"], bad["loss_hex"]) == (None, None, "nan")
    assert bad["positions"] == list(range(56, 64)) and bad["skipped"] == "a loss of nan"
    assert all(math.isfinite(line["loss"]) for line in curve if line is not bad)
    (told,) = ctx.events.of("step_skipped")  # type: ignore[attr-defined]
    assert told == "step 3: a loss of nan for images at positions 56..63 of the sample order; " + ", ".join(
        ledger[2]["keys"][8:16]
    )
    assert made.metrics["skipped_steps"] == 1
    saved = [text.split(":")[0] for text in ctx.events.of("checkpoint_committed")]  # type: ignore[attr-defined]
    assert saved == ["step 6", "step 9", "step 10"]
    committed = ctx.out.node.read(made.file("metrics.jsonl").at).splitlines()
    assert metrics_log.skips(committed) == Skips(0, 1) and metrics_log.skips(committed[:3]) == Skips(1, 1)


def test_the_record_says_where_the_time_went(tmp_path: Path, shards: ShardSet) -> None:
    ctx = context(tmp_path)
    made = pretrain(recipe(**EVERY), ctx, shards)
    named = {name: value for name, value in made.metrics.items() if name.startswith("seconds_")}
    assert set(named) == {f"seconds_{cause}" for cause in ("productive", "queue", "startup", "data_wait", "checkpoint",
                                                           "evaluation", "skipped", "restarts", "other")}  # fmt: skip
    assert all(value >= 0 for value in named.values())
    assert made.metrics["goodput"] == pytest.approx(named["seconds_productive"] / sum(named.values()), rel=0.01)
    assert named["seconds_checkpoint"] > 0 and named["seconds_evaluation"] > 0 and named["seconds_startup"] > 0
    told = ctx.metrics.values  # type: ignore[attr-defined]
    assert 0 < told["goodput_ratio"] < 1 and 0 <= told["data_wait_ratio"] <= 1
    assert told["checkpoint_stall_seconds_total"] > 0
    rank = ctx.progress.updates[-1]["ranks"][0]  # type: ignore[attr-defined]
    assert rank["forward_seconds"] > 0 and rank["data_wait_seconds"] >= 0
