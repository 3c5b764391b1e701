"""Other data sets that a pretraining's own head is tested on while it trains: named as inputs, matched by name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from inprocess import commit, make_context
from tiny_pretraining import RECIPE, StopsAt, context, pretrain, recipe

from vitpipe.infra.errors import Stopped, UsageError
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.quality import real_accuracy
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, check_inputs
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.pretrain.run import run
from vitpipe.stages.training.measure import evaluation

EVERY: dict[str, Any] = {"every": "4 steps", "eval_resize": "squash"}


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path, counts={"train": 60})


@pytest.fixture
def watch(tmp_path: Path) -> tuple[ShardSet, ShardSet]:
    """One with a class fewer, in another order; one whose images have several classes."""
    second = synthetic.shards(tmp_path, "v2", ("blue", "red"), {"test": 25}, noise=150)
    real = synthetic.shards(tmp_path, "real", ("green", "red", "blue"), {"val": 31}, 16, 150, multi_label=True)
    return second, real


def trained(ctx: StageContext, shards: ShardSet, watch: tuple[ShardSet, ...], **changes: Any) -> Checkpoint:
    inputs = {"shards": (shards,), **({"watch": watch} if watch else {})}
    return run(recipe(**changes), Inputs(inputs), ctx)


def lines(ctx: StageContext, made: Checkpoint, name: str = "evaluation.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in ctx.out.node.read(made.file(name).at).splitlines()]


def scored(tmp_path: Path, made: Checkpoint, ctx: StageContext, watch: tuple[ShardSet, ShardSet]) -> dict[str, float]:
    """What the stage `evaluate` says of the weights that came out."""
    weighing = make_context(tmp_path, "weights", ConvertResources())
    wanted = Inputs({"checkpoint": (commit(ctx, made),)})
    weights = commit(weighing, convert(ConvertConfig(formats=("native",)), wanted, weighing))
    found = {}
    for data, method, split in zip(watch, ("classify", "real"), ("test", "val"), strict=True):
        config = EvaluateConfig.model_validate({"method": method, "split": split, "eval_resize": "squash"})
        scoring = make_context(tmp_path, f"score-{method}", EvaluateResources())
        found[data.name] = evaluate(config, Inputs({"data": (data,), "weights": (weights,)}), scoring).value
    return found


def test_what_is_watched_is_what_the_weights_score_afterwards(
    tmp_path: Path, shards: ShardSet, watch: tuple[ShardSet, ShardSet]
) -> None:
    plain, seen = context(tmp_path, node="plain"), context(tmp_path, node="seen")
    wanted = trained(plain, shards, ())
    made = trained(seen, shards, watch, evaluate=EVERY)
    curve = [[line["loss_hex"] for line in lines(ctx, one, "metrics.jsonl")] for ctx, one in
             ((plain, wanted), (seen, made))]  # fmt: skip
    assert curve[0] == curve[1], "nothing that is measured moves the training"
    rows = lines(seen, made)
    assert [row["step"] for row in rows] == [4, 8, 10] and set(rows[-1]["watch"]) == {"v2", "real"}
    assert rows[-1]["watch"] == pytest.approx(scored(tmp_path, made, seen, watch), abs=1e-12)
    assert any(0 < row["watch"][name] < 1 for row in rows for name in ("v2", "real")), "of no trivial model"
    told = seen.events.of("evaluated")  # type: ignore[attr-defined]
    assert len(told) == 3 and "real" in told[-1] and f"v2 {100 * rows[-1]['watch']['v2']:.1f} %" in told[-1]


@pytest.mark.parametrize("several", [True, False])
def test_the_rule_is_that_of_real(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four classes of a head of six, in another order; of images with none or several right names as ReaL has them."""
    rng, outputs = np.random.default_rng(3), (5, 0, 3, 2)
    logits = rng.standard_normal((40, 6)).astype(np.float32)
    labels = rng.integers(0, 2, (40, 4)).astype(np.float32) if several else rng.integers(0, 4, 40)
    right = np.zeros((40, 6))
    right[:, outputs] = labels if several else np.eye(4)[labels]
    wanted, counted = real_accuracy(logits.argmax(axis=1), right)
    assert (counted < 40) == several and 0.1 < wanted < 0.9

    def halves(*given: Any) -> Any:
        for half in (slice(0, 16), slice(16, 40)):
            batch = Batch(torch.empty(0), torch.from_numpy(labels[half]), torch.empty(0), torch.empty(0))
            yield batch, torch.from_numpy(logits[half])

    monkeypatch.setattr(evaluation, "answers", halves)
    monkeypatch.setattr(evaluation.dist, "all_reduce", lambda sums: None)
    engine = SimpleNamespace(device=torch.device("cpu"))
    assert evaluation.named_right(engine, None, outputs, 1) == pytest.approx(wanted, abs=1e-12)
    assert evaluation.named_right(engine, None, sorted(outputs), 1) != pytest.approx(wanted, abs=1e-3), "a wrong order"


def test_two_ranks_and_a_resume_measure_the_same(
    tmp_path: Path, shards: ShardSet, watch: tuple[ShardSet, ShardSet]
) -> None:
    """25 and 31 images on two ranks of micro-batches of 8, the weights split; a measurement is made up for."""
    whole = context(tmp_path, node="whole")
    wanted = lines(whole, trained(whole, shards, watch, evaluate=EVERY))
    with pytest.raises(Stopped, match="step 8 is committed"):
        trained(context(tmp_path, fence=StopsAt(7)), shards, watch, evaluate=EVERY)
    again = context(tmp_path, "a2", ("a1",))
    assert lines(again, trained(again, shards, watch, evaluate=EVERY)) == wanted
    two = context(tmp_path, node="two", workers=2, zero=3)
    found = lines(two, trained(two, shards, watch, evaluate=EVERY))
    for row, other in zip(found, wanted, strict=True):
        assert row["watch"] == pytest.approx(other["watch"], abs=0.08)  # rounding may turn a narrow image


def test_tensorboard_has_them_too(tmp_path: Path, shards: ShardSet, watch: tuple[ShardSet, ShardSet]) -> None:
    # a second to import, and only this needs it
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ctx = context(tmp_path)
    made = commit(ctx, trained(ctx, shards, watch, evaluate=EVERY))
    for file in made.files:
        if "tfevents" in file.path:
            made.fetch(file.path, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [one.step for one in events.Scalars("watch/real")] == [4, 8, 10]


def test_classes_are_compared_before_anything_is_trained(tmp_path: Path, shards: ShardSet) -> None:
    strange = synthetic.shards(tmp_path, "strange", ("red", "yellow"), {"test": 6})
    unseen = synthetic.shards(tmp_path, "unseen", ("red", "blue"), {"train": 6})
    config = recipe(evaluate=EVERY)
    for other, message in ((strange, "1 of 2 classes are unknown.*'yellow'.*`probes`"), (unseen, "no split test")):
        with pytest.raises(UsageError, match=message):
            estimate(config, PretrainResources(), {"shards": (shards,), "watch": (other,)}, Known())
        with pytest.raises(UsageError, match=message):
            pretrain(config, context(tmp_path, node="run"), shards, watch=other)
    planned = Estimate(splits={"test": 5}, num_classes=2, class_names=("red", "yellow"))
    with pytest.raises(UsageError, match="Cannot watch a set of this run while training: 1 of 2 classes"):
        estimate(config, PretrainResources(), {"shards": (shards,), "watch": (planned,)}, Known())
    bare = Estimate(num_classes=0, class_names=())
    with pytest.raises(UsageError, match="its images have no classes"):
        estimate(config, PretrainResources(), {"shards": (shards,), "watch": (bare,)}, Known())


def test_two_sets_of_one_name_are_refused(tmp_path: Path, shards: ShardSet) -> None:
    """Of two runs, for instance: one would stand in the other's place."""
    elsewhere = tmp_path / "other"
    both = [
        synthetic.shards(folder, "v2", ("red", "blue"), {"train": 6, "test": 6}) for folder in (tmp_path, elsewhere)
    ]
    for name in ("watch", "probes"):
        inputs = Inputs({"shards": (shards,), name: tuple(both)})
        with pytest.raises(UsageError, match="two of them have one name"):
            run(recipe(evaluate=EVERY), inputs, context(tmp_path, node=f"twice-{name}"))


def test_what_has_no_meaning_is_told_at_validate() -> None:
    given = {"shards": 1, "watch": 1}
    hiding = PretrainConfig.model_validate(RECIPE | {"objective": {"kind": "mae"}, "evaluate": EVERY})
    assert check_inputs(recipe(evaluate=EVERY), given) == []
    assert "config.evaluate.every" in check_inputs(recipe(), given)[0]
    assert "mae has none: give probes" in check_inputs(hiding, given)[0]
    assert check_inputs(hiding, {"shards": 1}) == []
