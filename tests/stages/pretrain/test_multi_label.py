"""Training on images with several classes each, for a model that may have more classes than they."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import synthetic
from tiny_pretraining import RECIPE, context, pretrain, recipe

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.contract import StageContext

CLASSES, BIAS = 3, -10.0


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path, multi_label=True)


def lines(ctx: StageContext, made: Checkpoint, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ctx.out.node.read(made.file(name).at).splitlines()]


@pytest.mark.parametrize("classes", [None, CLASSES, 7])
@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_losses_are_summed_over_all_classes_of_the_model(
    tmp_path: Path, shards: ShardSet, classes: int | None, mixup: float
) -> None:
    """A head of zeros says `BIAS` of each class: what that costs where two are there, or shares of two images'."""
    config = recipe(
        model={**RECIPE["model"], "classes": classes}, objective={"kind": "sigmoid", "head_bias": BIAS},
        augment={"crop": "none", "mixup": mixup}, evaluate={"every": "1 steps", "eval_resize": "squash"},
        total="2 steps", schedule={"warmup": "1 steps"},
    )  # fmt: skip
    ctx = context(tmp_path)
    made = pretrain(config, ctx, shards)
    absent = math.log1p(math.exp(BIAS))
    wanted = 2 * (absent - BIAS) + ((classes or CLASSES) - 2) * absent
    assert lines(ctx, made, "metrics.jsonl")[0]["loss"] == pytest.approx(wanted, rel=1e-5)
    held_out, after = lines(ctx, made, "evaluation.jsonl")  # the first update has rate 0
    assert held_out["loss"] == pytest.approx(wanted, rel=1e-5)
    assert held_out["accuracy"] == pytest.approx(2 / 3)  # the first of equal outputs is right in two of three images
    assert after["loss"] < wanted


def test_a_softmax_is_refused(tmp_path: Path, shards: ShardSet) -> None:
    with pytest.raises(UsageError, match="several classes each, a softmax has one"):
        pretrain(recipe(), context(tmp_path), shards)
