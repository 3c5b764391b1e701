"""`needs: {continue: ...}`: a longer run goes on where another ended, and computes what it alone would have."""

from pathlib import Path

import pytest
import synthetic
from inprocess import commit
from states import committed, curve, differing
from tiny_pretraining import context, pretrain, recipe

from vitpipe.infra.errors import DriftError, UsageError
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, check_inputs
from vitpipe.stages.pretrain.estimate import estimate

CONSTANT = {"kind": "constant", "warmup": "2 steps"}
"""Of the two runs of 4 and of 10 steps the same rates in the first 4."""


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path)


def short(tmp_path: Path, shards: ShardSet, config: PretrainConfig, workers: int = 1) -> Checkpoint:
    ctx = context(tmp_path, node="short", workers=workers)
    found = commit(ctx, pretrain(config, ctx, shards), stage="pretrain", config=config.model_dump(mode="json"))
    assert isinstance(found, Checkpoint)
    return found


def test_a_longer_run_goes_on_as_if_it_had_always_been_one(tmp_path: Path, shards: ShardSet) -> None:
    mixing = recipe(augment={"mixup": 0.2}, ema={"decay": 0.9}, schedule=CONSTANT, total="4 steps")
    longer = mixing.model_copy(update={"total": recipe().total})
    given = short(tmp_path, shards, mixing, workers=2)
    whole = context(tmp_path, node="whole", workers=2, zero=1)
    wanted = pretrain(longer, whole, shards)
    more = context(tmp_path, node="more", workers=2, zero=1)
    found = pretrain(longer, more, shards, **{"continue": given})
    assert curve(more, found) == curve(whole, wanted)[4:]  # metrics.jsonl begins at the first step of its own
    assert differing(committed(more, found), committed(whole, wanted)) == []
    assert (found.step, found.samples_seen) == (10, 240)
    told = more.events.of("resumed")[0]  # type: ignore[attr-defined]
    assert told.startswith(f"from step 4 of {given.uri}, 96 images seen")


def test_what_may_not_differ_is_named(tmp_path: Path, shards: ShardSet) -> None:
    given = short(tmp_path, shards, recipe(total="2 steps"))
    other = recipe(optimizer={"peak_lr": 0.01}, seed=1)
    with pytest.raises(
        DriftError, match=r"config\.optimizer\.peak_lr 0\.003 -> 0\.01; config\.seed 0 -> 1\."
    ) as caught:
        pretrain(other, context(tmp_path, node="more"), shards, **{"continue": given})
    assert caught.value.code == 3
    inputs = {"shards": (shards,), "continue": (given,)}
    with pytest.raises(DriftError, match=r"config\.seed 0 -> 1"):
        estimate(other, PretrainResources(micro_batch=8), inputs, Known())
    elsewhere = synthetic.shards(tmp_path / "elsewhere", classes=("red", "blue", "green", "pink"))
    with pytest.raises(DriftError, match=r"needs\.shards, manifest SHA-256"):
        pretrain(recipe(), context(tmp_path, node="more"), elsewhere, **{"continue": given})
    free = recipe(total="5 steps", schedule={"kind": "cosine"})
    assert estimate(free, PretrainResources(micro_batch=8), inputs, Known()).steps == 3


def test_nothing_left_to_do_is_refused(tmp_path: Path, shards: ShardSet) -> None:
    given = short(tmp_path, shards, recipe(total="2 steps"))
    with pytest.raises(UsageError, match="made 2 steps, and the new total is 2"):
        pretrain(recipe(total="2 steps"), context(tmp_path, node="more"), shards, **{"continue": given})


def test_the_plan_knows_before_the_first_part_has_run() -> None:
    images = {"shards": (Estimate(splits={"train": 100}, num_classes=3),)}
    first = estimate(recipe(total="4 steps"), PretrainResources(micro_batch=8), images, Known())
    assert "recipe" not in first.model_dump(mode="json")
    after = {**images, "continue": (first,)}
    assert estimate(recipe(), PretrainResources(micro_batch=8), after, Known()).steps == 6
    with pytest.raises(DriftError, match=r"config\.seed 0 -> 5"):
        estimate(recipe(seed=5), PretrainResources(micro_batch=8), after, Known())


def test_init_and_continue_exclude_each_other() -> None:
    assert check_inputs(recipe(), {"shards": 1, "init": 1, "continue": 1}) == [
        "`init` begins anew with given parameters, `continue` goes on with a training: remove one of them"
    ]
    assert check_inputs(recipe(), {"shards": 1, "continue": 1}) == []
