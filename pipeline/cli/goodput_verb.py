"""The verb that simulates a pretraining on many machines over weeks, with what goes wrong there."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli.plan_options import ClusterFile, GpuName, GpusFile, MachineOptions
from vitpipe.pipeline.cli.plan_verbs import AsJson, Overrides, Spec
from vitpipe.pipeline.cli.terminal import folded, print_json, say
from vitpipe.pipeline.plan.counted import counted

if TYPE_CHECKING:
    from vitpipe.infra.simulation.road import Trip
    from vitpipe.pipeline.plan.goodput import Circumstances
    from vitpipe.pipeline.spec.load import PipelineSpec
    from vitpipe.pipeline.spec.text.problems import SpecError
    from vitpipe.stages.costs.machines import ClusterFacts

goodputs = typer.Typer()

MOST_GPUS = 65_536

NEVER_ENDS = 4
LEAST_DAYS = 0.01
"""Between two interruptions of a machine of eight: with more of them nothing would end, nor would the simulation."""


def _seconds(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0, max=1e5, help=what, show_default=False)
    return option


def _days(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=LEAST_DAYS, max=1e6, help=what, show_default=False)
    return option


StartSeconds = Annotated[float | None, _seconds("From machines to a first step; else by the file's restart_s.")]
StallSeconds = Annotated[float | None, _seconds("Of a checkpoint's copy; else by the file's copy_bytes_per_s.")]
CommitSeconds = Annotated[float | None, _seconds("Of its way to the store; else by the file's store_gbit_per_s.")]
MachineDays = Annotated[float | None, _days("Days of 8 GPUs between two interruptions; else by the file, or 264.")]
PreemptDays = Annotated[float | None, _days("Days until a machine is told that it will be taken away; else none.")]
AwayHours = Annotated[float, typer.Option(min=0, max=1e5, help="Until a machine that was taken away is there again.")]
PerMachine = Annotated[int | None, typer.Option(min=1, max=64, help="Else by the file, or 8.", show_default=False)]


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
    away_hours: AwayHours = 4.0,
    start_seconds: StartSeconds = None,
    stall_seconds: StallSeconds = None,
    commit_seconds: CommitSeconds = None,
    person_minutes: Annotated[float, typer.Option(min=0, max=1e5, help="Until a command is run again.")] = 30.0,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each.")] = 5,
    policies: Annotated[bool, typer.Option("--policies", help="Also with each failure policy otherwise.")] = False,
    as_json: AsJson = False,
) -> int:
    """Simulate a pretraining where machines fail: which share of its time would be useful, and where the rest goes.

    The queue and the failure policies are the run's own. A save stalls its ranks, and is committed while they go on.
    GPUs, links, store, copies, failures and restarts are those of `plan`, by the same files; the rest options say.
    Ends with 4 where a number of GPUs, as set, never comes to its end.
    """
    from vitpipe.pipeline.cli.goodput_lines import assumption
    from vitpipe.pipeline.plan.goodput import Circumstances

    around = Circumstances(
        cluster=_facts(cluster_file, gpus_per_machine, machine_days),
        spares=spares,
        repair_hours=repair_hours,
        preempt_days=preempt_days,
        away_hours=away_hours,
        person_s=person_minutes * 60,
        start_s=start_seconds,
        stall_s=stall_seconds,
        commit_s=commit_seconds,
    )
    id, sizes = _sized(gpus, spec, overrides or [], node)
    found = _simulated(sizes, id, (gpu, gpus_file), around, seeds, policies, as_json)
    if as_json:
        print_json({"assumes": around.to_json(), "simulated": found})
    else:
        say(folded(assumption(around, seeds)))
    return NEVER_ENDS if any("never_ends" in one for one in found if one["policy"] == "as set") else 0


def _simulated(
    sizes: "Mapping[int, PipelineSpec | SpecError]",
    id: str,
    kind: tuple[str | None, Path | None],
    around: "Circumstances",
    seeds: int,
    policies: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Simulate every size, told of as soon as it is known; `kind` is of GPU, and the file that describes it."""
    found: list[dict[str, Any]] = []
    for count, sized in sizes.items():
        machines = MachineOptions(kind[0], count, None, kind[1], None)
        for name, told, said in _rows(sized, id, machines, around, seeds, policies):
            found.append({"gpus": count, "policy": name, **told})
            if not as_json:
                say(folded(f"{counted(count, 'GPU', 'd')}, {name}: {said}"))
    return found


def _facts(path: Path | None, gpus_per_machine: int | None, machine_days: float | None) -> "ClusterFacts":
    """Read what a file says of the machines; the options win. UsageError where it fails too often to be simulated."""
    from vitpipe.pipeline.plan.given_machines import cluster

    facts, told = cluster(path), dict[str, float]()
    told |= {"gpus_per_machine": gpus_per_machine} if gpus_per_machine is not None else {}
    told |= {"gpu_hours_between_failures": machine_days * 24 * 8} if machine_days is not None else {}
    facts = facts.model_copy(update=told)
    if facts.gpu_hours_between_failures < (least := LEAST_DAYS * 24 * 8):
        found = f"gpu_hours_between_failures {facts.gpu_hours_between_failures:g} is less than {least:g}"
        raise UsageError(f"simulate the machines of {path}", found, "such machines train nothing: give a larger one")
    return facts


def _rows(
    sized: "PipelineSpec | SpecError",
    id: str,
    machines: MachineOptions,
    around: "Circumstances",
    seeds: int,
    policies: bool,
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Simulate one size: each policy's name, how it went as data, and in words."""
    from vitpipe.infra.simulation.policies import variations
    from vitpipe.pipeline.cli.goodput_lines import fared, takes
    from vitpipe.pipeline.spec.text.problems import SpecError

    if isinstance(sized, SpecError):
        yield "as set", {"does_not_fit": _why(sized)}, f"does not fit, {_why(sized)}"
        return
    one = _trip(sized, id, machines, around)
    for name, varied in (variations(one) if policies else {"as set": one}).items():
        told, said = fared(varied, seeds)
        yield name, {**told, "takes": takes(varied)}, said


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


def _trip(found: "PipelineSpec", id: str, machines: MachineOptions, around: "Circumstances") -> "Trip":
    """Plan the node for these machines, and describe its training on them."""
    from vitpipe.infra.storage.opening import open_store
    from vitpipe.pipeline.plan.costed import costed
    from vitpipe.pipeline.plan.goodput import trip
    from vitpipe.pipeline.plan.planned import StoreFacts
    from vitpipe.pipeline.plan.survey import survey

    at_store: StoreFacts = survey(open_store(found.uri), found.graph, False, reuse=found.reuse)
    made = costed(found, at_store, machines.machine(found, around.cluster))
    if problem := made.nodes[id].problem:
        raise problem
    return trip(found.graph, made, id, machines.gpus or 1, around)
