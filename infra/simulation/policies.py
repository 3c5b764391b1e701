"""What each failure policy is worth: the same trip with one of them switched off, or set otherwise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.cluster import AWAY_S, DAY_S, Hazards
from vitpipe.infra.simulation.road import Trip, travel
from vitpipe.infra.simulation.training_model import TrainingModel

LLAMA_MACHINE_DAYS = 264.0
"""Days of a machine of eight GPUs between two unexpected interruptions: 419 in 54 days of 16,384 H100 (Llama 3, 2024,
section 3.3.4)."""
HARDWARE, HANGS = 0.78, 0.02
"""Shares of these for which a machine had to go, as told there, and in which a collective hung (7 of 419); the others
are processes that die."""
LONG_HANG_S, NO_BUDGET = 1800.0, 1_000_000


def hazards(
    machine_days: float = LLAMA_MACHINE_DAYS,
    repair_s: float = DAY_S,
    preempt_days: float = math.inf,
    away_s: float = AWAY_S,
) -> Hazards:
    """Describe machines of which each is interrupted once in so many days, and taken away once in `preempt_days`."""
    mean = machine_days * DAY_S
    return Hazards(
        crash_s=mean / (1 - HARDWARE - HANGS),
        hang_s=mean / HANGS,
        loss_s=mean / HARDWARE,
        repair_s=repair_s,
        preempt_s=preempt_days * DAY_S,
        away_s=away_s,
    )


def young(interruption_s: float, cost_s: float) -> float:
    """Seconds between two saves that cost `cost_s` each, at one interruption in so many seconds (Young, 1974)."""
    return math.sqrt(2 * cost_s * interruption_s)


@dataclass(frozen=True)
class SavesEach:
    """Saves at each multiple of so many steps, and at the end; called with a step, it gives the next that is saved."""

    every: int
    total: int

    def __call__(self, step: int) -> int:
        every = max(1, self.every)
        return min(self.total, (step // every + 1) * every)


def variations(trip: Trip) -> dict[str, Trip]:
    """The trip as it is, and with one policy otherwise, each by what it is called in a table."""
    model = trip.training
    size, total = model.size, model.total_steps
    seconds = model.step_seconds(size.most)
    first, half = model.next_save(0), max(1, size.most // 2)
    changed: dict[str, TrainingModel] = {
        "as set": model,
        "no restart: each loss waits for a person": replace(model, max_failures=0),
        "no budget: restarted as often as it takes": replace(model, max_failures=NO_BUDGET),
        "elastic, from half of the ranks": replace(model, size=replace(size, least=min(size.least, half))),
        "machines waited for as long as it takes": replace(model, wait_s=math.inf),
        "not elastic": replace(model, size=Size(size.most, size.most, size.cpus, size.gpus)),
        "deaf to preemption": replace(model, heeds_notices=False),
        "training waits for each commit": replace(model, saves_aside=False),
        "saved ten times as seldom": replace(model, next_save=SavesEach(10 * first, total)),
        "saved ten times as often": replace(model, next_save=SavesEach(first // 10, total)),
        "a hang is given up after half an hour": replace(model, hang_timeout_s=LONG_HANG_S),
    }
    interruption = trip.hazards.interruption_s(len(trip.machines))
    if not math.isinf(interruption):
        every = round(young(interruption, max(model.stall_s, seconds)) / seconds)
        changed["saved as Young has it"] = replace(model, next_save=SavesEach(min(every, total), total))
    return {name: replace(trip, training=one) for name, one in changed.items()}


@dataclass(frozen=True)
class Fared:
    """How some seeds of a trip went, in the mean."""

    goodput: float
    spread: float
    """Standard deviation of the goodput over the seeds."""
    days: float
    starts: float
    commands: float
    shares: Mapping[str, float]
    """Of the training's time, by what it went to."""


def fare(trip: Trip, seeds: Sequence[int]) -> Fared:
    """Simulate a trip once a seed. StageError where one never comes to its end."""
    ran = [travel(trip, seed) for seed in seeds]
    kinds = sorted({kind for one in ran for kind in one.spent})
    goodputs = [one.goodput for one in ran]
    return Fared(
        goodput=fmean(goodputs),
        spread=stdev(goodputs) if len(ran) > 1 else 0.0,
        days=fmean(one.training_s for one in ran) / DAY_S,
        starts=fmean(one.starts for one in ran),
        commands=fmean(one.commands for one in ran),
        shares={kind: fmean(one.spent.get(kind, 0.0) / one.training_s for one in ran) for kind in kinds},
    )
