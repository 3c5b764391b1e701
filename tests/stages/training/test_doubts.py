"""Each slip in a training's numbers is met, and its nearest neighbour that is none is not."""

from typing import Any

import pytest

from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.estimate import estimate as estimate_finetuning
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate as estimate_pretraining

PHOTOS = Estimate(splits={"train": 160, "test": 40}, num_classes=4)
SMALL = {"variant": {"layers": 1, "width": 32, "mlp": 64, "heads": 2, "patch_px": 8}, "image_px": 32}
RECIPE: dict[str, Any] = {"model": SMALL, "batch_images": 32, "total": "20 epochs"}


def pretraining(resources: dict[str, Any] | None = None, **changes: Any) -> tuple[str, ...]:
    config = PretrainConfig.model_validate(RECIPE | changes)
    told = PretrainResources.model_validate(resources or {})
    return estimate_pretraining(config, told, {"shards": [PHOTOS]}, Known()).notes


def finetuning(**changes: Any) -> tuple[str, ...]:
    config = FinetuneConfig.model_validate({"batch_images": 16, "total": "20 epochs", "peak_lr": 0.01} | changes)
    weights = Estimate(model=ModelSettings.model_validate(SMALL | {"classes": 5}))
    found = estimate_finetuning(config, FinetuneResources(), {"data": [PHOTOS], "weights": [weights]}, Known())
    first, *doubts = found.notes
    assert "trials choose the rate" in first
    return tuple(doubts)


def rate(kind: str, peak_lr: float) -> dict[str, Any]:
    return {"optimizer": {"kind": kind, "peak_lr": peak_lr}}


TWICE = "more than the {} training images, a step sees some twice: try {}"
STAYS = "% of it stays the weights before the first; try 0.9"
LESS = "training images: less than one epoch"

PRETRAINING = [
    (
        {"total": "1 epochs", "batch_images": 64},
        "total 1 epochs is 2.5 steps of 64 images: 2 are taken, 32 images are dropped",
    ),
    ({"total": "1 epochs"}, None),
    ({"total": "4 steps"}, f"4 steps of 32 see 128 of 160 {LESS}"),
    ({"total": "130 images"}, f"4 steps of 32 see 128 of 160 {LESS}"),
    ({"total": "5 steps"}, None),
    ({"total": "0.8 epochs"}, None),  # who says so means it
    (
        {"schedule": {"warmup": "0.6 epochs"}, "batch_images": 64, "total": "40 epochs"},
        "warmup 0.6 epochs is 1.5 steps of 64 images: 1 is taken",
    ),
    (
        {"schedule": {"warmup": "0.3 epochs"}, "batch_images": 64, "total": "40 epochs"},
        "warmup 0.3 epochs is 0.8 steps of 64 images: 0 are taken",
    ),
    ({"schedule": {"warmup": "2 epochs"}}, None),
    ({"schedule": {"warmup": "100 steps"}}, "the warm-up takes all 100 steps: the rate never reaches its peak"),
    ({"schedule": {"warmup": "51 steps"}}, "the warm-up takes 51 of 100 steps, more than half"),
    ({"schedule": {"warmup": "50 steps"}}, None),
    (rate("adamw", 0.03), "peak_lr 0.03 is above what adamw is used with, 1e-06 to 0.01"),
    (rate("adam", 1e-7), "peak_lr 1e-07 is below what adam is used with, 1e-06 to 0.01"),
    (rate("adamw", 0.01), None),
    (rate("sgd", 10.0), "peak_lr 10 is above what sgd is used with, 0.0001 to 1"),
    (rate("sgd", 1e-5), "peak_lr 1e-05 is below what sgd is used with, 0.0001 to 1"),
    (rate("sgd", 0.1), None),
    (rate("lion", 0.01), "peak_lr 0.01 is above what lion is used with, 1e-07 to 0.003"),
    (rate("lion", 1e-4), None),
    ({"batch_images": 256}, f"batch_images 256 is {TWICE.format(160, '128 or 64 or 32')}"),
    ({"batch_images": 160}, None),
    ({"ema": {"decay": 0.9999}}, f"ema.decay 0.9999 averages over 10,000 steps, the run has 100: 99 {STAYS}"),
    (
        {"ema": {"decay": 0.99}, "total": "19 epochs"},
        f"ema.decay 0.99 averages over 100 steps, the run has 95: 38 {STAYS}",
    ),
    ({"ema": {"decay": 0.9}}, None),
]


@pytest.mark.parametrize(("changes", "said"), PRETRAINING)
def test_a_slip_of_a_pretraining_is_met_and_its_neighbour_is_none(changes: dict[str, Any], said: str | None) -> None:
    assert pretraining(**changes) == (() if said is None else (said,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"total": "5 steps"}, f"5 steps of 16 see 80 of 160 {LESS}"),
        ({"total": "500 steps"}, None),
        (
            {"total": "1 epochs", "batch_images": 96},
            "total 1 epochs is 1.7 steps of 96 images: 1 is taken, 64 images are dropped",
        ),
        ({"peak_lr": [0.01, 3.0]}, "peak_lr 3 is above what sgd is used with, 0.0001 to 1"),
        ({"peak_lr": 1e-5}, "peak_lr 1e-05 is below what sgd is used with, 0.0001 to 1"),
        ({"batch_images": 512, "total": "500 steps"}, f"batch_images 512 is {TWICE.format(160, '128 or 64 or 32')}"),
        ({"train_per_class": 2, "total": "50 steps"}, f"batch_images 16 is {TWICE.format(8, '8 or 4 or 2')}"),
        ({"ema": {"decay": 0.9999}}, f"ema.decay 0.9999 averages over 10,000 steps, the run has 200: 98 {STAYS}"),
        ({"warmup": "150 steps"}, "the warm-up takes 150 of 200 steps, more than half"),
        ({"warmup": "0.05 epochs"}, "warmup 0.05 epochs is 0.5 steps of 16 images: 0 are taken"),
        ({}, None),
        ({"warmup": "1 epochs", "peak_lr": [0.003, 0.01, 0.06], "ema": {"decay": 0.99}}, None),
    ],
)
def test_a_slip_of_a_finetuning_is_met_and_its_neighbour_is_none(changes: dict[str, Any], said: str | None) -> None:
    assert finetuning(**changes) == (() if said is None else (said,))


def test_batches_that_fit_are_multiples_of_what_the_machine_takes() -> None:
    three = {"micro_batch": 24, "workers": 2}
    assert pretraining(three, batch_images=240)[-1].endswith("a step sees some twice: try 96 or 48")
    whole = {"micro_batch": 192}
    assert pretraining(whole, batch_images=192)[-1].endswith("no multiple of 192 fits: lower micro_batch too")


def test_a_rate_may_grow_with_the_batch() -> None:
    many = Estimate(splits={"train": 1_281_167}, num_classes=1000)
    goyal = PretrainConfig.model_validate(RECIPE | {"batch_images": 8192, **rate("sgd", 3.2)})
    assert estimate_pretraining(goyal, PretrainResources(), {"shards": [many]}, Known()).notes == ()


def test_a_training_of_no_step_is_refused_where_it_is_planned() -> None:
    with pytest.raises(Exception, match="160 training images make less than one step of batch_images 512"):
        finetuning(batch_images=512, total="3 epochs")
    with pytest.raises(Exception, match="144 training images make less than one step of batch_images 150"):
        finetuning(batch_images=150, total="1 epochs", peak_lr=[0.01, 0.03])
    assert finetuning(batch_images=150, total="1 epochs") == (), "without a sweep all of train is there"
