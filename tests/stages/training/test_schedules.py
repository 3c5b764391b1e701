"""Learning rates at known steps, against the formulas of big_vision's `create_learning_rate_schedule`."""

import math

import pytest

from vitpipe.stages.settings import Duration
from vitpipe.stages.training.optim.schedule import ScheduleSettings, in_steps, lr_at

PAPER_STEPS = 311_936  # 90 epochs of ImageNet-21k at batch 4096


def resolved(total: int, **fields: object) -> ScheduleSettings:
    return in_steps(ScheduleSettings.model_validate(fields), total, batch_images=4096, epoch_images=14_197_122)


@pytest.mark.parametrize(
    ("kind", "step", "wanted"),
    [
        ("linear", 0, 0.0),
        ("linear", 5_000, 5e-4),
        ("linear", 10_000, 1e-3),
        ("linear", (10_000 + PAPER_STEPS) // 2, 5e-4),
        ("linear", PAPER_STEPS, 0.0),
        ("cosine", 10_000, 1e-3),
        ("cosine", 10_000 + (PAPER_STEPS - 10_000) // 4, 1e-3 * 0.5 * (1 + math.cos(math.pi / 4))),
        ("cosine", PAPER_STEPS, 0.0),
        ("constant", 10_000, 1e-3),
        ("constant", PAPER_STEPS, 1e-3),
    ],
)
def test_paper_recipe_at_known_steps(kind: str, step: int, wanted: float) -> None:
    schedule = resolved(PAPER_STEPS, kind=kind)
    assert lr_at(step, PAPER_STEPS, schedule, 1e-3) == pytest.approx(wanted, rel=1e-12, abs=1e-18)


def test_rsqrt_halves_after_three_timescales_and_cools_down_to_zero() -> None:
    schedule = resolved(100_000, kind="rsqrt", warmup="10k steps", cooldown="20k steps")
    assert lr_at(10_000, 100_000, schedule, 1.0) == 1.0
    assert lr_at(40_000, 100_000, schedule, 1.0) == pytest.approx(0.5)
    assert lr_at(80_000, 100_000, schedule, 1.0) == pytest.approx(1 / math.sqrt(8))
    assert lr_at(90_000, 100_000, schedule, 1.0) == pytest.approx(0.5 / 3)
    assert lr_at(100_000, 100_000, schedule, 1.0) == 0.0


def test_end_lr_is_where_linear_and_cosine_end() -> None:
    for kind in ("linear", "cosine"):
        schedule = resolved(100, kind=kind, warmup="10 steps", end_lr=1e-5)
        assert lr_at(100, 100, schedule, 1e-3) == pytest.approx(1e-5)


def test_default_warmup_is_the_papers_but_at_most_a_twentieth() -> None:
    assert resolved(PAPER_STEPS).warmup == Duration(10_000, "steps")
    assert resolved(200).warmup == Duration(10, "steps")
    assert resolved(10).warmup == Duration(0, "steps")


def test_lengths_in_epochs_become_steps() -> None:
    schedule = in_steps(ScheduleSettings(warmup=Duration(2, "epochs")), 100, batch_images=10, epoch_images=55)
    assert schedule.warmup == Duration(11, "steps")


def test_a_schedule_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup 60 \+ cooldown 50 > 100 steps"):
        resolved(100, kind="rsqrt", warmup="60 steps", cooldown="50 steps")


def test_rsqrt_without_cooldown_and_unresolved_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="cooldown"):
        ScheduleSettings(kind="rsqrt")
    with pytest.raises(ValueError, match="in_steps"):
        lr_at(0, 10, ScheduleSettings(warmup=Duration(1, "epochs")), 1.0)
