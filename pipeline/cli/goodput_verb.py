"""The verb that simulates a pretraining on many machines over weeks, with what goes wrong there."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.pipeline.cli.plan_options import ClusterFile, GpuName, GpusFile, MachineOptions
from vitpipe.pipeline.cli.plan_verbs import AsJson, Overrides, Spec
from vitpipe.pipeline.cli.terminal import folded, print_json, say

if TYPE_CHECKING:
    from vitpipe.infra.simulation.policies import Fared
    from vitpipe.infra.simulation.road import Trip
    from vitpipe.pipeline.plan.goodput import Circumstances
    from vitpipe.pipeline.spec.load import PipelineSpec
    from vitpipe.pipeline.spec.text.problems import SpecError
    from vitpipe.stages.costs.machines import ClusterFacts

goodputs = typer.Typer()

MOST_GPUS = 65_536

Seconds = Annotated[
    float | None, typer.Option(min=0, max=1e5, help="Best measured on a run; else by bytes.", show_default=False)
]
MachineDays = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1e6,
        help="Days of 8 GPUs between two interruptions; else by --cluster-file, or Llama 3's 264.",
        show_default=False,
    ),
]
PreemptDays = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1e6,
        help="Days between two announcements that a machine is taken away; else none.",
        show_default=False,
    ),
]
PerMachine = Annotated[
    int | None, typer.Option(min=1, max=64, help="Else by --cluster-file, or 8.", show_default=False)
]


@goodputs.command()
def goodput(
    spec: Spec,
    overrides: Overrides = None,
    node: Annotated[str | None, typer.Option(metavar="NODE", help="The pretraining, where there are several.")] = None,
    gpus: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of GPUs to simulate.")] = "8,64,512,4096",
    gpu: GpuName = None,
    gpus_file: GpusFile = None,
    cluster_file: ClusterFile = None,
    gpus_per_machine: PerMachine = None,
    spares: Annotated[float, typer.Option(min=0, max=10, help="Machines beyond those that train, as a share.")] = 0.02,
    machine_days: MachineDays = None,
    repair_hours: Annotated[float, typer.Option(min=0, max=1e5, help="Until a lost machine is replaced.")] = 24.0,
    preempt_days: PreemptDays = None,
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
    GPUs and links are those of `plan`, by the same files; starts, saves and repairs are what options say.
    """
    from vitpipe.pipeline.plan.goodput import Circumstances

    facts = _facts(cluster_file, gpus_per_machine)
    around = Circumstances(
        gpus_per_machine=facts.gpus_per_machine,
        spares=spares,
        machine_days=machine_days or _machine_days(facts),
        repair_hours=repair_hours,
        preempt_days=preempt_days,
        start_s=start_seconds,
        stall_s=stall_seconds,
        commit_s=commit_seconds,
        person_s=person_minutes * 60,
    )
    found: list[dict[str, Any]] = []
    id, sizes = _sized(gpus, spec, overrides or [], node)
    for count, sized in sizes.items():
        machines = MachineOptions(gpu, count, None, gpus_file, None)
        for name, told, said in _rows(sized, id, machines, facts, around, seeds, policies):
            found.append({"gpus": count, "policy": name, **told})
            if not as_json:
                say(folded(f"{count} GPUs, {name}: {said}"))
    if as_json:
        print_json({"assumes": asdict(around), "simulated": found})


def _facts(path: Path | None, gpus_per_machine: int | None) -> "ClusterFacts":
    """Read what a file says of the machines; the option wins."""
    from vitpipe.pipeline.plan.given_machines import cluster

    facts = cluster(path)
    return facts.model_copy(update={"gpus_per_machine": gpus_per_machine}) if gpus_per_machine else facts


def _machine_days(facts: "ClusterFacts") -> float:
    """Days of 8 GPUs between two interruptions, as a file of machines says it, else Llama 3's."""
    from vitpipe.infra.simulation.policies import LLAMA_MACHINE_DAYS

    told = "gpu_hours_between_failures" in facts.model_fields_set
    return facts.gpu_hours_between_failures / 24 / 8 if told else LLAMA_MACHINE_DAYS


def _rows(
    sized: "PipelineSpec | SpecError",
    id: str,
    machines: MachineOptions,
    facts: "ClusterFacts",
    around: "Circumstances",
    seeds: int,
    policies: bool,
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Simulate one size: each policy's name, how it went as data, and in words."""
    from vitpipe.infra.simulation.policies import variations
    from vitpipe.pipeline.spec.text.problems import SpecError

    if isinstance(sized, SpecError):
        yield "as set", {"does_not_fit": _why(sized)}, f"does not fit, {_why(sized)}"
        return
    one = _trip(sized, id, machines, facts, around)
    for name, varied in (variations(one) if policies else {"as set": one}).items():
        yield name, *_fared(varied, seeds)


def _counts(gpus: str) -> list[int]:
    words = [word.strip() for word in gpus.split(",")]
    wrong = [word for word in words if not word.isdecimal() or not 0 < int(word) <= MOST_GPUS]
    if wrong:
        found = f"{', '.join(map(repr, wrong))} is no number from 1 to {MOST_GPUS}"
        raise UsageError(f"simulate {gpus!r} GPUs", found, "write --gpus 8,64,512")
    return [int(word) for word in words]


def _sized(
    gpus: str, spec: Path, overrides: list[str], named: str | None
) -> "tuple[str, dict[int, PipelineSpec | SpecError]]":
    """Name the pretraining, and read the YAML with so many ranks, in the proportion of least and most that it has.

    Of a size that does not fit its error; UsageError where none fits.
    """
    from vitpipe.pipeline.plan.goodput import pretraining
    from vitpipe.pipeline.spec.load import load
    from vitpipe.pipeline.spec.text.problems import SpecError

    counts, graph = _counts(gpus), load(spec, overrides).graph
    node = graph.nodes[id := pretraining(graph, named)]
    set_as = node.resources
    least, most = getattr(set_as, "least_workers", 1), getattr(set_as, "most_workers", 1)
    micro = getattr(set_as, "micro_batch", None) or 64
    batch = getattr(node.config, "batch_images", 0)
    name = f"nodes.{node.name}.resources"
    found: dict[int, PipelineSpec | SpecError] = {}
    for count in counts:
        sizes = f"[{max(1, math.ceil(count * least / most))}, {count}]" if least < most else str(count)
        fits = batch // micro < count <= batch and not batch % count
        smaller = [f"{name}.micro_batch={batch // count}"] if fits else []
        try:
            found[count] = load(spec, [*overrides, f"{name}.workers={sizes}", *smaller])
        except SpecError as error:
            found[count] = error
    wrong = [one for one in found.values() if isinstance(one, SpecError)]
    if len(wrong) == len(found):
        raise UsageError(f"simulate {gpus} GPUs", _why(wrong[0]), "name other numbers by --gpus")
    return id, found


def _why(error: "SpecError") -> str:
    return "; ".join(one.text for one in error.problems)


def _trip(
    found: "PipelineSpec", id: str, machines: MachineOptions, facts: "ClusterFacts", around: "Circumstances"
) -> "Trip":
    """Plan the node for these machines, and describe its training on them."""
    from vitpipe.infra.storage.opening import open_store
    from vitpipe.pipeline.plan.costed import costed
    from vitpipe.pipeline.plan.goodput import trip
    from vitpipe.pipeline.plan.planned import StoreFacts
    from vitpipe.pipeline.plan.survey import survey

    at_store: StoreFacts = survey(open_store(found.uri), found.graph, False, reuse=found.reuse)
    made = costed(found, at_store, machines.machine(found, facts))
    if problem := made.nodes[id].problem:
        raise problem
    return trip(found.graph, made, id, machines.gpus or 1, around)


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
