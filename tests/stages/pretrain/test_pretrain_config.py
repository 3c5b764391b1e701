"""What is refused before any data is seen, and the defaults that are derived."""

from typing import Any

import pytest
from tiny_pretraining import RECIPE, recipe

from vitpipe.infra.errors import UsageError
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.pretrain.config import PretrainResources, check
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.pretrain.job import ResolvedRecipe
from vitpipe.stages.settings import Duration, micro_batch_of


@pytest.mark.parametrize(("batch", "wanted"), [(4096, 64), (96, 48), (67, 1), (30, 30)])
def test_micro_batch_is_the_largest_divisor_up_to_64(batch: int, wanted: int) -> None:
    assert micro_batch_of(batch, None) == wanted


def test_a_batch_that_does_not_divide_is_an_equation() -> None:
    assert check(recipe(batch_images=30), PretrainResources(micro_batch=7)) == [
        "batch_images 30 is not a multiple of micro_batch 7: 30 = 4 x 7 + 2"
    ]


def test_a_micro_batch_is_part_of_a_batch() -> None:
    wrong = check(recipe(), PretrainResources(micro_batch=48))
    assert wrong == ["micro_batch 48 is a part of batch_images 24: set it to 24 or less"]
    (wrong,) = check(recipe(), PretrainResources(micro_batch=24, workers=2))
    assert wrong.startswith("2 workers would share 1 micro-batch: batch_images 24 = 1 x micro_batch 24")


def test_workers_without_work_are_refused() -> None:
    wrong = check(recipe(batch_images=64), PretrainResources(workers=3, micro_batch=32))
    assert wrong == [
        "3 workers would share 2 micro-batches: batch_images 64 = 2 x micro_batch 32; set micro_batch to 21 or less"
    ]
    (wrong,) = check(recipe(batch_images=64), PretrainResources(workers=65, micro_batch=32))
    assert wrong.endswith("; set workers to 64 or less"), "no micro-batch is small enough"


def test_a_schedule_longer_than_the_run_is_seen_without_data_where_units_agree() -> None:
    long = {"kind": "rsqrt", "warmup": "6 steps", "cooldown": "5 steps"}
    assert check(recipe(schedule=long), PretrainResources()) == [
        "schedule of 6 steps + 5 steps is longer than the run of 10 steps"
    ]
    assert check(recipe(schedule={"warmup": "241 images"}), PretrainResources()) == [  # batches of 24
        "schedule of 241 images is longer than the run of 10 steps"
    ]
    assert check(recipe(schedule={"warmup": "240 images"}), PretrainResources()) == []


def test_a_schedule_longer_than_the_run_is_seen_at_plan_where_units_differ() -> None:
    """Before any rank starts: `run` makes the same course of the real shards."""
    shards = {"shards": (Estimate(splits={"train": 240}, num_classes=5),)}
    for warmup, total in (("21 steps", "2 epochs"), ("3 epochs", "20 steps")):
        long = recipe(schedule={"warmup": warmup}, total=total)
        assert check(long, PretrainResources()) == []
        with pytest.raises(UsageError, match=r"longer than the run: warmup (21|30) \+ cooldown 0 > 20 steps"):
            estimate(long, PretrainResources(), shards, Known())
    assert estimate(recipe(schedule={"warmup": "20 steps"}, total="2 epochs"), PretrainResources(), shards, Known())


@pytest.mark.parametrize(
    "section",
    [
        {"total": "0 steps"},
        {"evaluate": {"every": "0 epochs"}},
        {"schedule": {"kind": "rsqrt", "cooldown": "1 steps", "timescale": "0 steps"}},
        {"checkpoint_every": "0 steps"},
        {"milestone_every": "0.0 epochs"},
    ],
)
def test_what_must_last_is_longer_than_nothing(section: dict[str, Any]) -> None:
    of_resources = section.keys() <= PretrainResources.model_fields.keys()
    with pytest.raises(ValueError, match=r"longer than nothing, not 0"):
        PretrainResources.model_validate(section) if of_resources else recipe(**section)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"schedule": {"kind": "constant", "end_lr": 1e-5}}, "schedule constant does not end at a rate of its own"),
        (
            {"schedule": {"kind": "rsqrt", "cooldown": "1 steps", "end_lr": 1e-5}},
            "schedule rsqrt does not end at a rate",
        ),
        ({"schedule": {"timescale": "3 steps"}}, "timescale belongs to rsqrt, the schedule is linear: leave it out"),
        ({"schedule": {"end_lr": 2.0}}, "schedule.end_lr 2 is above optimizer.peak_lr"),
        ({"optimizer": {"kind": "sgd", "betas": [0.9, 0.99]}}, "sgd has no betas: leave it out"),
        ({"optimizer": {"kind": "adam", "momentum": 0.8}}, "adam has no momentum: leave it out"),
    ],
)
def test_what_would_have_no_effect_is_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe(**section)


def test_what_has_an_effect_is_taken() -> None:
    assert recipe(optimizer={"kind": "sgd", "momentum": 0.8}, schedule={"kind": "cosine", "end_lr": 1e-5})
    rsqrt = recipe(schedule={"kind": "rsqrt", "cooldown": "1 steps", "timescale": "3 steps"})
    assert type(rsqrt).model_validate(rsqrt.model_dump(mode="json")) == rsqrt, "as a record states it, defaults and all"


def test_what_fits_is_not_refused() -> None:
    assert check(recipe(), PretrainResources(micro_batch=8, workers=3)) == []


def test_checkpoints_come_ten_times_a_run_but_every_thousand_steps() -> None:
    short = ResolvedRecipe(recipe(total="50 steps"), PretrainResources(), 100)
    long = ResolvedRecipe(recipe(total="300k steps"), PretrainResources(), 100)
    said = ResolvedRecipe(recipe(), PretrainResources(checkpoint_every=Duration(2, "epochs")), 120)
    assert (short.checkpoint_steps, long.checkpoint_steps, said.checkpoint_steps) == (5, 1000, 10)


@pytest.mark.parametrize("field", ["model", "batch_images", "total"])
def test_required_fields_are_required(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        type(recipe()).model_validate({name: value for name, value in RECIPE.items() if name != field})


def test_sigmoid_starts_from_its_bias() -> None:
    assert recipe(objective={"kind": "sigmoid"}).objective.initial_head_bias == -10
    assert recipe(objective={"kind": "sigmoid", "head_bias": -6.9}).objective.initial_head_bias == -6.9
    assert recipe().objective.initial_head_bias == 0


@pytest.mark.parametrize("decay", [0, 1, -0.1, 1.5])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema\.decay"):
        recipe(ema={"decay": decay})


@pytest.mark.parametrize("betas", [(0.9, 1.5), (1.0, 0.999), (-0.1, 0.9)])
def test_an_impossible_beta_is_refused(betas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"optimizer\.adamw\.betas"):
        recipe(optimizer={"betas": betas})


def test_elastic_workers_and_offload_are_checked() -> None:
    told = check(recipe(batch_images=64), PretrainResources(workers=(4, 2), micro_batch=8, offload="cpu", zero=0))
    assert told == [
        "workers [4, 2]: the first is the least of them",
        "offload cpu moves what ZeRO splits, and zero is 0: set zero to 1 or more",
    ]
    assert check(recipe(batch_images=64), PretrainResources(workers=(2, 4), micro_batch=8, offload="cpu")) == []
    wrong = check(recipe(batch_images=64), PretrainResources(workers=(2, 9), micro_batch=8))
    assert wrong[0].startswith("9 workers would share 8 micro-batches")


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"fp16 is not offered: its gradients need a loss scale.*bf16 has the range"):
        recipe(precision="fp16")
    assert recipe(precision="bf16").precision == "bf16"


def test_a_head_of_other_classes_is_no_beginning() -> None:
    """At plan already, as soon as the shards are known; in `run` before any rank starts."""
    given = {**RECIPE["model"], "classes": 1000}
    known = {"shards": (Estimate(splits={"train": 100}, num_classes=5),), "init": (Estimate(model=given),)}
    with pytest.raises(UsageError, match=r"head has 1000 classes, the shards and config\.model make 5"):
        estimate(recipe(), PretrainResources(), known, Known())
    for classes in (0, 5):
        fitting = known | {"init": (Estimate(model=given | {"classes": classes}),)}
        assert estimate(recipe(), PretrainResources(), fitting, Known()).steps == 10
    other = known | {"init": (Estimate(model=given | {"classes": 5, "registers": 2}),)}
    with pytest.raises(
        UsageError, match=r"another function: registers 2 -> 0\. Set config\.model as these weights have"
    ):
        estimate(recipe(), PretrainResources(), other, Known())


def test_a_plan_knows_that_there_is_nothing_to_measure() -> None:
    known = {"shards": (Estimate(splits={"train": 100}, num_classes=5),)}
    with pytest.raises(UsageError, match=r"its shards hold .*no probes"):
        estimate(recipe(evaluate={"every": "2 steps"}), PretrainResources(), known, Known())
    held_out = {"shards": (Estimate(splits={"train": 100, "val": 9}, num_classes=5),)}
    assert estimate(recipe(evaluate={"every": "2 steps"}), PretrainResources(), held_out, Known()).steps == 10


def test_one_class_is_enough_for_who_looks_at_none() -> None:
    """Two for a softmax; where the number is not known yet nothing is claimed."""
    shards = {name: {"shards": (Estimate(splits={"train": 100}, num_classes=name),)} for name in (None, 1, 2)}
    assert estimate(recipe(), PretrainResources(), shards[None], Known()).steps is None
    assert estimate(recipe(), PretrainResources(), shards[2], Known()).steps == 10
    with pytest.raises(UsageError, match=r"(?i)it has a single class: 1"):
        estimate(recipe(), PretrainResources(), shards[1], Known())
    masked = recipe(objective={"kind": "masked_patch"}, model={"variant": "B/16", "image_px": 224, "pool": "gap"})
    assert estimate(masked, PretrainResources(), shards[1], Known()).steps == 10
