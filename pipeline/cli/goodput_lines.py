"""How a simulated pretraining went, as data and in words, and what was assumed. Knows no YAML."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vitpipe.infra.errors import StageError
from vitpipe.infra.simulation.cluster import DAY_S
from vitpipe.infra.simulation.policies import Fared, fare
from vitpipe.infra.simulation.road import Trip
from vitpipe.pipeline.cli.display import short
from vitpipe.pipeline.plan.counted import counted

if TYPE_CHECKING:
    from vitpipe.pipeline.plan.goodput import Circumstances

_KINDS = {
    "again": "steps made again",
    "fewer": "fewer or slower machines",
    "queue": "waiting for machines",
    "machines": "machines to come back",
    "start": "starts",
    "save": "saves",
    "noticing": "losses not seen yet",
    "person": "nobody there",
}
_TOLD = 0.00005
"""The least share that is named."""


def fared(trip: Trip, seeds: int) -> tuple[dict[str, Any], str]:
    """How it goes, as data and in words."""
    try:
        found = fare(trip, range(seeds))
    except StageError as error:  # too much goes wrong for this one
        return {"never_ends": error.found}, f"never ends, {error.found}"
    return asdict(found), line(found)


def takes(trip: Trip) -> dict[str, float]:
    """What one of it takes, in seconds: a step with all machines, starts, saves, and until a loss is seen."""
    model = trip.training
    return {
        "step_s": model.step_seconds(model.size.most),
        "first_start_s": model.starting_s(1),
        "start_s": model.start_s,
        "stall_s": model.stall_s,
        "commit_s": model.commit_s,
        "crash_seen_s": model.crash_seen_s,
        "loss_seen_s": model.loss_seen_s,
        "hang_timeout_s": model.hang_timeout_s,
        "preempt_grace_s": trip.hazards.grace_s,
    }


def assumption(around: "Circumstances", seeds: int) -> str:
    """Say in one line what each number depends on, beside a plan's step."""
    mean = f"means of {seeds} runs each" if seeds > 1 else "one run each"
    cluster, taken = around.cluster, around.preempt_days
    gpus = "1 GPU" if cluster.gpus_per_machine == 1 else f"{cluster.gpus_per_machine} GPUs"
    away = f"taken away once in {taken:g} days for {around.away_hours:g} hours" if taken else "none taken away"
    again = f"{cluster.ranks_start_s:g} s to start, {cluster.restart_s:g} s from a loss to the next step"
    start = again if around.start_s is None else f"{around.start_s:g} s to start"
    copied = f"copied at {short(cluster.copy_bytes_per_s, 'B')}/s a GPU"
    stall = copied if around.stall_s is None else f"that stalls {around.stall_s:g} s"
    sent = f"sent at {cluster.store_gbit_per_s:g} Gbit/s a machine"
    if cluster.store_total_gbit_per_s is not None:
        sent += f", {cluster.store_total_gbit_per_s:g} of all"
    commit = sent if around.commit_s is None else f"committed {around.commit_s:g} s later"
    return (
        f"{mean}, on machines of {gpus}, {100 * around.spares:g}% of them spare; eight GPUs interrupted once in "
        f"{around.machine_days:.3g} days, replaced after {around.repair_hours:g} hours, {away}; {start}; "
        f"a checkpoint {stall} and {commit}; {around.person_s / 60:g} minutes until a person types a command again"
    )


def line(one: Fared) -> str:
    """`goodput 98.3%, 12.1 days, 3 starts; starts 1.1%, saves 0.62%`."""
    shares = {**one.shares, "fewer": one.shares.get("steps", 0.0) - one.goodput}
    lost = sorted(((share, kind) for kind, share in shares.items() if kind != "steps"), reverse=True)
    parts = [f"{_KINDS[kind]} {_percent(share)}" for share, kind in lost if share >= _TOLD]
    told = ", ".join((f"goodput {_percent(one.goodput)}", _took(one.days), *_times(one)))
    return f"{told}; {', '.join(parts) or 'nothing lost'}"


def _percent(share: float) -> str:
    """Write a share so that its distance from nothing and from all is seen: `0.05%`, `12.3%`, `99.93%`."""
    return f"{share:.1%}" if 0.01 <= share < 0.99 else f"{share:.2%}"


def _took(days: float) -> str:
    for unit, seconds in (("days", DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if days * DAY_S >= seconds:
            return f"{days * DAY_S / seconds:.1f} {unit}"
    return f"{days * DAY_S:.1f} seconds"


def _times(one: Fared) -> Iterator[str]:
    """Say how often ranks started, and how often somebody typed the command; in the mean of the seeds."""
    yield counted(one.starts, "start", ".3g")
    if one.commands > 1:
        in_vain = ", some while machines were missing" if one.commands > one.starts else ""
        yield f"the command typed {one.commands:{',.0f' if one.commands >= 100 else '.3g'}} times{in_vain}"
