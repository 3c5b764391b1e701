"""Learning-rate schedules as functions of the step, as big_vision's `create_learning_rate_schedule` defines them.

Knows no optimiser and no torch: a plan on a laptop evaluates them too.
"""

import math
from typing import Literal, assert_never

from pydantic import model_validator

from vitpipe.stages.bounds import RateOrNone
from vitpipe.stages.settings import Duration, PositiveDuration, Settings

PAPER_WARMUP_STEPS = 10_000  # paper, Table 3


class ScheduleSettings(Settings):
    """How the learning rate moves between the first step and the last."""

    kind: Literal["linear", "cosine", "rsqrt", "constant"] = "linear"
    """Decay after the warm-up: linear or cosine to `end_lr`, reciprocal square root, or none (Table 3)."""
    warmup: Duration | None = None
    """Linear rise from 0; by default the paper's 10k steps, but at most a twentieth of the run."""
    end_lr: RateOrNone = 0.0
    """Learning rate at the last step, for linear and cosine; vision_transformer ends linear ones at 1e-5."""
    cooldown: Duration | None = None
    """Final linear fall to 0, multiplied on the decay; rsqrt must state it."""
    timescale: PositiveDuration = Duration(10_000, "steps")
    """Length over which rsqrt has fallen to 1/sqrt(2) of the peak."""

    @model_validator(mode="after")
    def _fits(self) -> "ScheduleSettings":
        if self.kind in ("rsqrt", "constant") and self.end_lr:
            raise ValueError(f"schedule {self.kind} does not end at a rate of its own: leave end_lr out")
        if self.kind != "rsqrt" and self.timescale != type(self).model_fields["timescale"].default:
            raise ValueError(f"timescale belongs to rsqrt, the schedule is {self.kind}: leave it out")
        if self.kind == "rsqrt" and self.cooldown is None:
            do = "state its `cooldown`, for instance '10k steps'"
            raise ValueError(f"schedule rsqrt never falls to 0 by itself: {do}")
        return self


def in_steps(settings: ScheduleSettings, total_steps: int, batch_images: int, epoch_images: int) -> ScheduleSettings:
    """State all lengths in steps of this run. ValueError when warm-up and cooldown together are longer than the run."""
    default = Duration(min(PAPER_WARMUP_STEPS, total_steps // 20), "steps")
    lengths = {"warmup": settings.warmup or default, "cooldown": settings.cooldown, "timescale": settings.timescale}
    steps = {name: length.steps(batch_images, epoch_images) for name, length in lengths.items() if length is not None}
    steps["timescale"] = max(1, steps["timescale"])  # it divides
    warmup, cooldown = steps["warmup"], steps.get("cooldown", 0)
    if warmup + cooldown > total_steps:
        sum_of_both = f"warmup {warmup} + cooldown {cooldown} > {total_steps} steps"
        raise ValueError(f"the schedule is longer than the run: {sum_of_both}")
    return settings.model_copy(update={name: Duration(count, "steps") for name, count in steps.items()})


def lr_at(step: int, total_steps: int, settings: ScheduleSettings, peak_lr: float) -> float:
    """Learning rate of the update that follows `step` finished updates (the first update has step 0).

    Lengths of `settings` must be in steps (`in_steps`); ValueError otherwise. With a warm-up of W steps the first
    update has rate 0 and update W the peak; a run of T updates would reach `end_lr` at step T.
    """
    warmup = _steps(settings.warmup, default=0)
    cooldown = _steps(settings.cooldown, default=0)
    progress = min(1.0, max(0.0, (step - warmup) / max(1, total_steps - warmup)))
    match settings.kind:
        case "linear":
            lr = settings.end_lr + (peak_lr - settings.end_lr) * (1 - progress)
        case "cosine":
            lr = settings.end_lr + (peak_lr - settings.end_lr) * 0.5 * (1 + math.cos(math.pi * progress))
        case "rsqrt":
            timescale = _steps(settings.timescale, default=PAPER_WARMUP_STEPS)
            lr = peak_lr / math.sqrt(1 + max(0, step - warmup) / timescale)
        case "constant":
            lr = peak_lr
        case unknown:
            assert_never(unknown)
    rise = min(1.0, step / warmup) if warmup else 1.0
    fall = min(1.0, (total_steps - step) / cooldown) if cooldown else 1.0
    return lr * rise * fall


def _steps(length: Duration | None, default: int) -> int:
    if length is None:
        return default
    if length.unit != "steps":
        raise ValueError(f"the schedule needs lengths in steps, got {length}: convert it with in_steps")
    return int(length.amount)
