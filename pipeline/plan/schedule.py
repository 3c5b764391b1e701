"""When each node of a plan would begin and end on given machines, by the run's own queue on a simulated clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vitpipe.infra.errors import UsageError
from vitpipe.infra.ray.reasons import lack
from vitpipe.infra.simulation.graphs import SimulatedNode, Span, run_graph
from vitpipe.infra.work import RANKS_PER_CORE
from vitpipe.pipeline.plan.counted import counted
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.plan.prices import Machine
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.stages.costs.tasks import WorkPhase, in_turn
from vitpipe.stages.settings import TaskResources

MOST_TASKS = 256
"""Tasks that the images of an ingest are cut into, at most."""
TASK_S = 30.0
"""Of each, about."""


@dataclass(frozen=True)
class Schedule:
    """Seconds from the beginning of the run, of nodes still to be run."""

    seconds: float
    spans: Mapping[str, Span]
    unknown: tuple[str, ...] = ()
    """Nodes of which nobody knows yet how long they take: they count for nothing."""
    problem: str = ""
    """Why there is none: what these machines could never hold."""

    def held(self, machine: Machine) -> dict[str, float | None]:
        """Say what all GPUs cost if they are held from the beginning to the end."""
        hours, each = self.seconds / 3600 * machine.num_gpus, machine.price_per_gpu_hour
        return {"held_gpu_hours": hours, "held_price": None if each is None else hours * each}

    def to_json(self, machine: Machine) -> dict[str, object]:
        """The schedule as `plan --json` prints it."""
        spans = {node: {"came": one.came, "began": one.began, "ended": one.ended} for node, one in self.spans.items()}
        told = {"seconds": self.seconds, "nodes": spans, "unknown": list(self.unknown), "problem": self.problem}
        return told | self.held(machine)


def scheduled(plan: Plan, graph: Graph, machine: Machine) -> Schedule:
    """Run what is due on the machines of the plan, simulated; what is committed or adopted takes no time."""
    nodes: dict[str, SimulatedNode] = {}
    last: dict[str, str] = {}
    unknown = []
    for id, one in plan.nodes.items():
        phases = one.work_phases
        if not phases and one.action != "reuse":
            unknown.append(id)
        needs = tuple(last[up] for up in graph.upstream(id))
        for number, phase in enumerate(phases or [WorkPhase(tasks=1, seconds=0.0, cpus=0.0)]):
            name = f"{id}\n{number}"
            nodes[name] = SimulatedNode((phase.seconds,) * phase.tasks, _bundle(phase, machine), phase.ranks, needs)
            needs = (name,)
        last[id] = needs[0]
    try:
        timeline = run_graph(nodes, _machines(machine))
    except UsageError as error:
        return Schedule(0.0, {}, tuple(unknown), error.found.replace("\n0", "").replace("\n1", ""))
    spans = {}
    for id, name in last.items():
        if plan.nodes[id].action != "reuse":
            first = timeline.spans[f"{id}\n0"]
            spans[id] = Span(first.came, first.began, timeline.spans[name].ended)
    return Schedule(timeline.seconds, spans, tuple(unknown))


def timed(plan: Plan, graph: Graph, machine: Machine) -> Plan:
    """Cut nodes whose hours are those of one core into tasks, and say how long these take on all machines."""
    nodes, start, known = dict(plan.nodes), machine.cluster.task_start_s, machine.known
    for id, one in plan.nodes.items():
        hours, resources = one.estimate.hours, graph.nodes[id].resources
        if hours is None or one.estimate.costs is not None or not isinstance(resources, TaskResources):
            continue
        tasks = max(1, min(MOST_TASKS, math.ceil(3600 * hours / TASK_S))) if one.stage == "ingest" else 1
        gpus, seconds = known.task_gpus(resources), start + 3600 * hours / tasks
        phase = WorkPhase(tasks=tasks, seconds=seconds, cpus=resources.cpus_per_task, gpus=gpus)
        took = in_turn((phase,), known.room(phase.cpus, gpus))
        estimate = one.estimate.model_copy(update={"hours": took / 3600})
        nodes[id] = replace(one, phases=(phase,), estimate=estimate)
    return Plan(nodes)


def refuse_misfits(plan: Plan, machine: Machine) -> None:
    """UsageError for a node that these machines could never hold, whatever else runs: it has no time and no price."""
    offered = _machines(machine, RANKS_PER_CORE)
    on = counted(machine.num_gpus, "GPU") if machine.num_gpus else counted(machine.cores, "CPU core", "d")
    for id, one in plan.nodes.items():
        for phase in one.work_phases:
            shape = SimulatedNode((0.0,), {"CPU": phase.cpus, "GPU": phase.gpus}, phase.ranks).shape
            if missing := lack(shape.asked, shape.count, offered):
                do = _would_fit(id, phase, machine) if machine.num_gpus else _fewer_cores(id, phase, offered)
                share_cores = machine.known.is_one_machine and not machine.num_gpus and "room" in missing
                shared = f" ({RANKS_PER_CORE} a core)" if share_cores else ""
                raise UsageError(f"plan {id} on {on}", f"it asks for {shape}, {missing}{shared}", do)


def _fewer_cores(id: str, phase: WorkPhase, offered: Mapping[str, Mapping[str, float]]) -> str:
    """Say what would fit on machines without GPUs."""
    most = max(has["CPU"] for has in offered.values())
    ways, held = [], sum(int(has["CPU"] // phase.cpus) for has in offered.values())
    if phase.ranks and held:
        ways.append(f"set resources.workers of {id} to {held} or less")
    elif most >= 1:
        ways.append(f"set resources.cpus_per_{'worker' if phase.ranks else 'task'} of {id} to {most:g} or less")
    ways.append("describe larger machines by --cluster-file (cores_per_machine)")
    return f"{', '.join(ways)}, or name GPUs by --gpu"


def _would_fit(id: str, phase: WorkPhase, machine: Machine) -> str:
    cluster, count = machine.cluster, max(1, phase.ranks)
    what, field = ("ranks", "cpus_per_worker") if phase.ranks else ("tasks", "cpus_per_task")
    beside = int(cluster.gpus_per_machine // phase.gpus) if phase.gpus else count
    if not beside:
        return f"ask for {cluster.gpus_per_machine} GPUs or fewer in one of its {what}"
    room, most = cluster.room_for(phase.gpus, phase.cpus), cluster.cores_per_machine // min(beside, count)
    ways = []
    if room < min(beside, count) and most:
        ways.append(f"set resources.{field} of {id} to {most} or less")
    if room and -(-count // room) * cluster.gpus_per_machine > machine.num_gpus:
        enough = -(-count // room) * cluster.gpus_per_machine if room < beside else math.ceil(count * phase.gpus)
        ways.append(f"give --gpus {enough}")
    here = sum(int(min(had["GPU"] // phase.gpus, room)) for had in _machines(machine).values()) if phase.gpus else 0
    if phase.ranks and here:
        ways.append(f"set resources.workers to {here}")
    held = (
        f"a machine of {cluster.cores_per_machine} cores and {cluster.gpus_per_machine} GPUs holds {room} such {what}"
    )
    return f"{' or '.join(ways) or 'describe larger machines by --cluster-file'}: {held}"


def _bundle(phase: WorkPhase, machine: Machine) -> dict[str, float]:
    """What one asks for; where all ask for more cores than there are, its part of them."""
    cpus = phase.cpus * machine.known.part_of_cores(phase.cpus * max(1, phase.ranks))
    return {"CPU": cpus, **({"GPU": phase.gpus} if phase.gpus else {})}


def _machines(machine: Machine, ranks_per_core: int = 1) -> dict[str, dict[str, float]]:
    """The machines of the plan, those without GPUs with so many times their cores where they are shared."""
    found: dict[str, dict[str, float]] = {}
    times = ranks_per_core if machine.known.is_one_machine and not machine.num_gpus else 1
    for count, cores, gpus in machine.known.machines:
        for _ in range(count):
            found[f"m{len(found)}"] = {"CPU": float(cores * times), **({"GPU": float(gpus)} if gpus else {})}
    return found
