"""The verb that simulates a pretraining on many machines over weeks, with what goes wrong there."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.pipeline.cli.plan_options import GpuName, MachineOptions
from vitpipe.pipeline.cli.plan_verbs import AsJson, Overrides, Spec
from vitpipe.pipeline.cli.terminal import folded, print_json, say

if TYPE_CHECKING:
    from vitpipe.infra.simulation.policies import Fared
    from vitpipe.infra.simulation.road import Trip
    from vitpipe.pipeline.plan.goodput import Circumstances

goodputs = typer.Typer()

MOST_GPUS = 65_536

Seconds = Annotated[
    float | None, typer.Option(min=0, max=1e5, help="Best measured on a run; else by bytes.", show_default=False)
]
MachineDays = Annotated[
    float, typer.Option(min=0.01, max=1e6, help="Days of 8 GPUs between two interruptions; by default Llama 3's.")
]
PreemptDays = Annotated[
    float, typer.Option(min=0.01, help="Days between two announcements that a machine is taken away.")
]


@goodputs.command()
def goodput(
    spec: Spec,
    overrides: Overrides = None,
    node: Annotated[str | None, typer.Option(metavar="NODE", help="The pretraining, where there are several.")] = None,
    gpus: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of GPUs to simulate.")] = "8,64,512,4096",
    gpu: GpuName = None,
    gpus_per_machine: Annotated[int, typer.Option(min=1, max=64)] = 8,
    spares: Annotated[float, typer.Option(min=0, max=10, help="Machines beyond those that train, as a share.")] = 0.02,
    machine_days: MachineDays = 264.0,
    repair_hours: Annotated[float, typer.Option(min=0, max=1e5, help="Until a lost machine is replaced.")] = 24.0,
    preempt_days: PreemptDays = math.inf,
    start_seconds: Annotated[float, typer.Option(min=0, max=1e5, help="From machines to a first step.")] = 120.0,
    stall_seconds: Seconds = None,
    commit_seconds: Seconds = None,
    person_minutes: Annotated[float, typer.Option(min=0, max=1e5, help="Until a command is run again.")] = 30.0,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each.")] = 5,
    policies: Annotated[bool, typer.Option("--policies", help="Also with each failure policy otherwise.")] = False,
    as_json: AsJson = False,
) -> None:
    """Simulate a pretraining where machines fail: which share of its time would be useful, and where the rest goes.

    The queue and the failure policies are the run's own. A save stalls its ranks, and is committed while they go on.
    """
    from vitpipe.infra.simulation.policies import variations
    from vitpipe.pipeline.plan.goodput import Circumstances

    around = Circumstances(
        gpus_per_machine=gpus_per_machine,
        spares=spares,
        machine_days=machine_days,
        repair_hours=repair_hours,
        preempt_days=preempt_days,
        start_s=start_seconds,
        stall_s=stall_seconds,
        commit_s=commit_seconds,
        person_s=person_minutes * 60,
    )
    found: list[dict[str, Any]] = []
    for count in _counts(gpus):
        one = _trip(spec, overrides or [], node, count, gpu, around)
        for name, varied in (variations(one) if policies else {"as set": one}).items():
            told, said = _fared(varied, seeds)
            found.append({"gpus": count, "policy": name, **told})
            if not as_json:
                say(folded(f"{count} GPUs, {name}: {said}"))
    if as_json:
        print_json({"assumes": asdict(around), "simulated": found})


def _counts(gpus: str) -> list[int]:
    words = [word.strip() for word in gpus.split(",")]
    wrong = [word for word in words if not word.isdecimal() or not 0 < int(word) <= MOST_GPUS]
    if wrong:
        found = f"{', '.join(map(repr, wrong))} is no number from 1 to {MOST_GPUS}"
        raise UsageError(f"simulate {gpus!r} GPUs", found, "write --gpus 8,64,512")
    return [int(word) for word in words]


def _trip(
    spec: Spec, overrides: list[str], node: str | None, gpus: int, gpu: str | None, around: "Circumstances"
) -> "Trip":
    """Plan the node for so many ranks, in the proportion of least and most that the YAML has."""
    from vitpipe.infra.storage.opening import open_store
    from vitpipe.pipeline.plan.costed import costed
    from vitpipe.pipeline.plan.goodput import pretraining, trip
    from vitpipe.pipeline.plan.planned import StoreFacts
    from vitpipe.pipeline.plan.survey import survey
    from vitpipe.pipeline.spec.load import load

    first = load(spec, overrides)
    id = pretraining(first.graph, node)
    set_as = first.graph.nodes[id].resources
    least, most = getattr(set_as, "least_workers", 1), getattr(set_as, "most_workers", 1)
    micro = getattr(set_as, "micro_batch", None) or 64
    batch = getattr(first.graph.nodes[id].config, "batch_images", 0)
    name = f"nodes.{id.partition('/')[0]}.resources"
    sizes = f"[{max(1, math.ceil(gpus * least / most))}, {gpus}]" if least < most else str(gpus)
    smaller = [f"{name}.micro_batch={batch // gpus}"] if batch // micro < gpus <= batch and not batch % gpus else []
    found = load(spec, [*overrides, f"{name}.workers={sizes}", *smaller])
    machine = MachineOptions(gpu, gpus, None, None, None).machine(found)
    facts: StoreFacts = survey(open_store(found.uri), found.graph, False, reuse=found.reuse)
    made = costed(found, facts, machine)
    if problem := made.nodes[id].problem:
        raise problem
    return trip(found.graph, made, id, gpus, around)


def _fared(trip: "Trip", seeds: int) -> tuple[dict[str, Any], str]:
    """How it goes, as data and in words."""
    from vitpipe.infra.simulation.policies import fare

    try:
        fared = fare(trip, range(seeds))
    except StageError as error:  # too much goes wrong for this one
        return {"never_ends": error.found}, f"never ends, {error.found}"
    return asdict(fared), _line(fared)


def _line(fared: "Fared") -> str:
    lost = sorted(((share, kind) for kind, share in fared.shares.items() if kind != "steps"), reverse=True)
    parts = [f"{_KINDS[kind]} {share:.1%}" for share, kind in lost if share >= 0.0005]
    days = f"{fared.days:.1f} days" if fared.days >= 1 else f"{fared.days * 24:.1f} hours"
    times = f"{fared.starts:.0f} starts" + (f", run {fared.commands:.0f} times by hand" if fared.commands > 1 else "")
    return f"goodput {fared.goodput:.1%}, {days}, {times}; {', '.join(parts) or 'nothing lost'}"


_KINDS = {
    "again": "steps made again",
    "queue": "waiting for machines",
    "machines": "machines to come back",
    "start": "starts",
    "save": "saves",
    "noticing": "losses not seen yet",
    "person": "nobody there",
}
