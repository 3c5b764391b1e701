"""One run on 2, 1, 3 and 2 ranks and at ZeRO 1, 3, 0 and 2: the images of one rank's run, and its losses.

With dropout, stochastic depth, Mixup and CutMix: what they draw must not know who computes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from states import committed, curve
from tiny_pretraining import StopsAt, context, pretrain, recipe
from torch import Tensor

from vitpipe.infra.errors import Stopped
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.pretrain.config import PretrainConfig
from vitpipe.stages.training.checkpoint.state_files import AVERAGE
from vitpipe.stages.training.config import WEIGHT
from vitpipe.stages.vit.build import build_model

WAYS = [(2, 1), (1, 3), (3, 0), (2, 2)]
"""(ranks, ZeRO stage) of the four parts."""
STEPS_A_PART = 3
TOTAL = len(WAYS) * STEPS_A_PART
TOLERANCE = 2e-5 * TOTAL / 6
"""Relative, as in test_parallel_equals_serial, whose runs have 6 steps: another order of sums of fp32 numbers."""


@dataclass(frozen=True)
class Elastic:
    """What the parts and one rank alone came to."""

    parts: list[dict[str, Any]]
    alone: list[dict[str, Any]]
    state: dict[str, Tensor]
    state_alone: dict[str, Tensor]
    resumed: list[str]
    other_masks: list[dict[str, Any]]
    """Of one rank with another micro-batch: the same images under other dropout masks."""


def mixing(precision: str) -> PretrainConfig:
    return recipe(
        augment={"mixup": 0.2, "cutmix": 1.0}, total=f"{TOTAL} steps", ema={"decay": 0.9}, precision=precision,
        optimizer={"peak_lr": 3e-3, "clip_norm": 1.0},
    )  # fmt: skip


def run_in_parts(folder: Path, shards: ShardSet, config: PretrainConfig) -> Elastic:
    alone = context(folder, node="alone", zero=0)
    wanted = pretrain(config, alone, shards)
    other = context(folder, node="other", zero=0, micro_batch=12)
    masks = curve(other, pretrain(config, other, shards))
    resumed: list[str] = []
    for number, (workers, zero) in enumerate(WAYS, 1):
        earlier = tuple(f"a{before}" for before in range(number - 1, 0, -1))
        last = number == len(WAYS)
        part = context(
            folder, f"a{number}", earlier, workers=workers, zero=zero, fence=None if last else StopsAt(STEPS_A_PART)
        )
        if last:
            found = pretrain(config, part, shards)
        else:
            with pytest.raises(Stopped):
                pretrain(config, part, shards)
        resumed = part.events.of("resumed")  # type: ignore[attr-defined]
    return Elastic(
        curve(part, found), curve(alone, wanted), committed(part, found), committed(alone, wanted), resumed, masks
    )


@pytest.fixture(scope="module")
def elastic(tmp_path_factory: pytest.TempPathFactory) -> Elastic:
    folder = tmp_path_factory.mktemp("elastic")
    return run_in_parts(folder, synthetic.shards(folder, classes=("red", "yellow", "green", "blue")), mixing("fp32"))


def test_every_step_stands_once_and_has_the_same_losses(elastic: Elastic) -> None:
    assert [line["step"] for line in elastic.parts] == list(range(1, TOTAL + 1))
    for ours, theirs in zip(elastic.parts, elastic.alone, strict=True):
        assert ours["samples_seen"] == theirs["samples_seen"] and ours["lr"] == theirs["lr"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=TOLERANCE)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=10 * TOLERANCE)


def test_other_dropout_masks_would_be_seen(elastic: Elastic) -> None:
    """Negative control: the same images in the same order, and the losses are a hundred tolerances apart."""
    apart = [
        abs(one["loss"] / theirs["loss"] - 1) for one, theirs in zip(elastic.other_masks, elastic.alone, strict=True)
    ]
    assert max(apart) > 100 * TOLERANCE


def test_weights_moments_and_average_are_those_of_one_rank(elastic: Elastic) -> None:
    """Relative to the largest number of a tensor: a sum whose terms cancel keeps few digits of itself.

    The biases of keys are left out, the middle third of `qkv.bias`: one adds the same q.b to every score of a query,
    which softmax does not see, so that its gradient is rounding alone, and Adam scales it up.
    """
    assert elastic.state.keys() == elastic.state_alone.keys()
    assert int(elastic.state["updates"]) == TOTAL
    assert any(name.startswith("average/") for name in elastic.state)
    for name, one in elastic.state_alone.items():
        pairs = [(elastic.state[name], one)]
        if name.endswith("attn.qkv.bias"):
            queries, _, values = zip(elastic.state[name].chunk(3), one.chunk(3), strict=True)
            pairs = [queries, values]
        for ours, theirs in pairs:
            assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max(), name


def test_what_the_two_runs_answer_is_as_near(elastic: Elastic) -> None:
    """With the biases of keys and all; of the weights and of their average."""
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vit = build_model(mixing("fp32").model.model_copy(update={"classes": 4})).eval()

    def logits(state: dict[str, Tensor], kind: str) -> Tensor:
        vit.load_state_dict({name: state[f"{kind}/{name}"] for name in vit.state_dict()})
        with torch.no_grad():
            return vit(images)

    for kind in (WEIGHT, AVERAGE):
        ours, theirs = logits(elastic.state, kind), logits(elastic.state_alone, kind)
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
        keys = {name: one.clone() for name, one in elastic.state_alone.items()}
        for name in keys:
            if name.endswith("attn.qkv.bias"):
                keys[name].chunk(3)[2].add_(1e-3)
        assert (logits(keys, kind) - theirs).abs().max() > TOLERANCE * theirs.abs().max(), "negative control: values"


def test_events_say_what_changed(elastic: Elastic) -> None:
    told = [text.partition("images seen")[2] for text in elastic.resumed]
    assert told == ["; workers 2 -> 1; zero 1 -> 3", "; workers 1 -> 3; zero 3 -> 0", "; workers 3 -> 2; zero 0 -> 2"]
