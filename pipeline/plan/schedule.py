"""When each node of a plan would begin and end on given machines, by the run's own queue on a simulated clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.infra.ray.reasons import lack
from vitpipe.infra.simulation.graphs import SimulatedNode, Span, run_graph
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.prices import Machine
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.stages.estimates import WorkPhase

MOST_TASKS = 256
"""Tasks that a node of unknown parts is cut into, at most."""
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

    def to_json(self) -> dict[str, object]:
        """The schedule as `plan --json` prints it."""
        spans = {node: {"came": one.came, "began": one.began, "ended": one.ended} for node, one in self.spans.items()}
        return {"seconds": self.seconds, "nodes": spans, "unknown": list(self.unknown), "problem": self.problem}


def scheduled(plan: Plan, graph: Graph, machine: Machine) -> Schedule:
    """Run what is due on the machines of the plan, simulated; what is committed or adopted takes no time."""
    nodes: dict[str, SimulatedNode] = {}
    last: dict[str, str] = {}
    unknown = []
    for id, one in plan.nodes.items():
        phases = _phases(one, machine)
        if not phases and one.action != "reuse":
            unknown.append(id)
        needs = tuple(last[up] for up in graph.upstream(id))
        for number, phase in enumerate(phases or [WorkPhase(tasks=1, seconds=0.0, cpus=0.0)]):
            name = f"{id}\n{number}"
            nodes[name] = SimulatedNode((phase.seconds,) * phase.tasks, _bundle(phase), phase.ranks, needs)
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


def refuse_misfits(plan: Plan, machine: Machine) -> None:
    """UsageError for a node that these GPUs could never hold, whatever else runs: it has no time and no price.

    Cores of the machine that plans are not those of the run's cluster: without GPUs nothing is refused.
    """
    if not machine.num_gpus:
        return
    machines = _machines(machine)
    for id, one in plan.nodes.items():
        for phase in _phases(one, machine):
            shape = SimulatedNode((0.0,), _bundle(phase), phase.ranks).shape
            if missing := lack(shape.asked, shape.count, machines):
                asked = f"plan {id} on {machine.num_gpus} GPU{'' if machine.num_gpus == 1 else 's'}"
                raise UsageError(asked, f"it asks for {shape}, {missing}", _would_fit(id, phase, machine))


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


def _phases(one: Planned, machine: Machine) -> list[WorkPhase]:
    cost = one.estimate
    if one.action == "reuse":
        return []
    if cost.costs is not None:
        return list(cost.costs.phases)
    if cost.hours is None:
        return []
    start, seconds = machine.cluster.task_start_s, cost.hours * 3600
    tasks = max(1, min(MOST_TASKS, math.ceil(seconds / TASK_S)))
    return [WorkPhase(tasks=tasks, seconds=start + seconds / tasks)]


def _bundle(phase: WorkPhase) -> dict[str, float]:
    return {"CPU": phase.cpus, **({"GPU": phase.gpus} if phase.gpus else {})}


def _machines(machine: Machine) -> dict[str, dict[str, float]]:
    """The machines of the cluster; without GPUs one, with the cores that there are."""
    if not machine.num_gpus:
        return {"here": {"CPU": float(machine.cores)}}
    cluster, left = machine.cluster, machine.num_gpus
    found: dict[str, dict[str, float]] = {}
    while left > 0:
        gpus = min(left, cluster.gpus_per_machine)
        found[f"m{len(found)}"] = {"CPU": float(cluster.cores_per_machine), "GPU": float(gpus)}
        left -= gpus
    return found
