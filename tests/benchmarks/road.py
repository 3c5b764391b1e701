"""Goodput on 8 to 4,096 GPUs by the run's own policies on a simulated clock, and what each policy is worth.

`PYTHONPATH=.:tests python -m tests.benchmarks.road [SEEDS]` also writes `docs/pictures/goodput.svg`.
"""

import math
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib
from simulated_roads import check

from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.cluster import DAY_S
from vitpipe.infra.simulation.policies import NO_BUDGET, SavesEach, fare, hazards, variations
from vitpipe.infra.simulation.road import Trip
from vitpipe.infra.simulation.training_model import TrainingModel

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
DAYS, STEP_S, EVERY = 30, 1.0, 1000
PREEMPT_DAYS = 120.0
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "goodput.svg"


def trip(gpus: int) -> Trip:
    """Thirty days of steps of a second on machines of eight, one in fifty of them spare."""
    machines = gpus // 8
    total = round(DAYS * DAY_S / STEP_S)
    model = TrainingModel(
        total, lambda count: STEP_S * machines / count, SavesEach(EVERY, total), Size(machines, machines, 0, 8),
        stall_s=1.0, commit_s=20.0, start_s=120.0,
    )  # fmt: skip
    names = [f"m{number}" for number in range(machines + math.ceil(machines / 50))]
    return Trip({name: {"GPU": 8.0} for name in names}, model, hazards(preempt_days=PREEMPT_DAYS))


def best(one: Trip) -> Trip:
    """Elastic, restarted as often as it takes."""
    size = one.training.size
    elastic = replace(size, least=max(1, size.most // 2))
    return replace(one, training=replace(one.training, size=elastic, max_failures=NO_BUDGET))


def main(seeds: int = 5) -> None:
    promises()
    curves = {"as set by default": lambda one: one, "elastic, no budget": best}
    curves["no restart, no notice"] = lambda one: replace(
        one, training=replace(one.training, max_failures=0, heeds_notices=False)
    )
    drawn = {}
    print(f"goodput, mean of {seeds} seeds (standard deviation) | {' | '.join(map(str, GPUS))} GPUs")
    for name, how in curves.items():
        fared = [fare(how(trip(gpus)), range(seeds)) for gpus in GPUS]
        drawn[name] = [one.goodput for one in fared]
        print(name, *(f"{one.goodput:.1%} ({one.spread:.1%})" for one in fared), sep=" | ", flush=True)
    draw(drawn)
    for gpus in (64, 512, 4096):
        print(f"\n{gpus} GPUs: policy | goodput | against as set | starts | commands | where the rest went")
        base = None
        for name, one in variations(trip(gpus)).items():
            fared = fare(one, range(seeds))
            base = base or fared.goodput
            lost = {kind: f"{share:.2%}" for kind, share in fared.shares.items() if kind != "steps" and share > 5e-4}
            print(
                f"{name} | {fared.goodput:.2%} | {fared.goodput - base:+.2%} | {fared.starts:.0f} | "
                f"{fared.commands:.1f} | {lost}", flush=True,
            )  # fmt: skip


def promises(seeds: int = 1000) -> None:
    """Random bad days, each of which keeps every promise of `simulated_roads.check`."""
    began, counts = time.process_time(), Counter()
    for seed in range(seeds):
        arrival, _ = check(seed)
        counts += Counter(
            {"starts": arrival.starts, "commands": arrival.commands, "steps made again": arrival.steps_lost}
        )
        counts += Counter(arrival.happened)
    print(f"{seeds} seeds keep every promise, {time.process_time() - began:.0f} CPU s: {dict(counts)}", flush=True)


def draw(curves: dict[str, list[float]]) -> None:
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "goodput"
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, values in curves.items():
        axes.plot(GPUS, [100 * value for value in values], marker="o", label=name)
    axes.set(xscale="log", xlabel="GPUs", ylabel="goodput, %", title="Thirty days of training on machines that fail")
    axes.set_xticks(GPUS, [f"{gpus:,}" for gpus in GPUS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
