"""How long a plan's work takes on GPUs of a stated kind, and what it costs: and what binds it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vitpipe.pipeline.plan.given_machines import gpu_kind, gpu_kinds
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.estimates import Known
from vitpipe.stages.record import Record

DEFAULT = "H100"
ASSUMED = ClusterFacts()
"""The machines, where nobody described them."""


@dataclass(frozen=True)
class Machine:
    """What the hours of a plan assume."""

    name: str
    """Of the kind of GPU."""
    gpu: GpuKind
    num_gpus: int
    """GPUs of the whole cluster; with 0 the work is on CPU cores."""
    price_per_gpu_hour: float | None = None
    cluster: ClusterFacts = ASSUMED
    cores: int = 1
    """CPU cores of all machines, where there are no GPUs."""

    @property
    def known(self) -> Known:
        """The same as estimates take it."""
        return Known(
            gpu_flops=self.gpu.flops(),
            gpus=self.num_gpus,
            gpu_bytes=self.gpu.memory_bytes,
            gpu=self.gpu,
            cluster=self.cluster,
            cores=self.cores,
        )

    @property
    def assumption(self) -> str:
        """The speeds behind every number of hours, in words."""
        if self.cluster.core_gflops is None:
            core = f"{self.known.cpu_flops / 1e9:.0f} GFLOP/s on a CPU core"
        else:
            core = f"CPU cores of {self.cluster.core_gflops:.0f} GFLOP/s"
        if not self.num_gpus:
            return f"hours assume no GPU and {core}"
        sustained = f"{self.gpu.share():.0%} of its {self.gpu.peak_flops / 1e12:.0f} bf16 TFLOP/s"
        links = f"{self.cluster.network_gbit_per_s:g} Gbit/s between machines of {self.cluster.gpus_per_machine}"
        store = f"{self.cluster.store_gbit_per_s:g} from the store"
        return f"hours assume {self.num_gpus} x {self.name} at {sustained}, {links}, {store}, and {core}"


def machine(
    graph: Graph,
    gpu: str | None = None,
    gpus: int | None = None,
    price: float | None = None,
    kinds: Mapping[str, GpuKind] | None = None,
    cluster: ClusterFacts = ASSUMED,
    cores: int = 1,
) -> Machine:
    """Describe the cluster that a plan is for; what is left out follows from what the pretrainings ask for.

    UsageError for a GPU that is not in the table.
    """
    name, kind = gpu_kind(kinds if kinds is not None else gpu_kinds(), gpu or DEFAULT)
    asked = max((_asked(node) for node in graph.nodes.values()), default=0)
    num_gpus = gpus if gpus is not None else asked or int(gpu is not None)
    each = price if price is not None else kind.price_per_hour
    return Machine(name, kind, num_gpus, each, cluster, cores)


def priced(plan: Plan, graph: Graph, machine: Machine) -> Plan:
    """Add GPU-hours to every node that computes on GPUs, its energy, and its price where one is given."""
    nodes = dict(plan.nodes)
    for id, one in plan.nodes.items():
        if one.estimate.flops is None or one.action == "reuse":
            continue
        if _on_gpus(graph.nodes[id], machine):
            hours = _gpu_hours(one, machine)
            energy = hours * machine.gpu.watts / 1000 + _core_hours(one) * machine.cluster.core_watts / 1000
            nodes[id] = replace(
                one,
                gpu_hours=hours,
                compute_gpu_hours=one.estimate.flops / machine.gpu.flops() / 3600,
                price=_times(hours, machine.price_per_gpu_hour),
                energy_kwh=energy,
            )
        else:
            hours = _core_hours(one)
            energy = hours * machine.cluster.core_watts / 1000
            nodes[id] = replace(one, price=_times(hours, machine.cluster.price_per_core_hour), energy_kwh=energy)
    return Plan(nodes)


def total(plan: Plan, machine: Machine) -> dict[str, Any]:
    """Add up all that is still to be run, for `plan --json`."""
    due = plan.having("run", "resume", "blocked")
    hours = [one.gpu_hours for one in due if one.gpu_hours is not None]
    flops = [one.estimate.flops for one in due if one.estimate.flops is not None]
    return {
        "flops": sum(flops),
        "gpu_hours": sum(hours),
        "compute_gpu_hours": sum(one.compute_gpu_hours for one in due if one.compute_gpu_hours is not None),
        "price": _price(due, hours, machine),
        "energy_kwh": sum(one.energy_kwh for one in due if one.energy_kwh is not None),
        "unknown": [one.node for one in due if one.stage in ("pretrain", "finetune") and one.estimate.flops is None],
    }


@dataclass(frozen=True)
class Consumption:
    """What committed nodes took, by their records: seconds by the driver's clock times what each had asked for.

    Of a node whose work is many tasks, one task at a time is counted: it took at least that.
    """

    seconds: float
    core_hours: float
    gpu_hours: float
    price: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The cost as `ls --json` and `compare --json` print it."""
        return asdict(self)


def spent(records: Iterable[Record], price_per_gpu_hour: float | None = None) -> Consumption:
    """Add up what the nodes of these records took, and its price where that of a GPU-hour is given."""
    return spent_by(((record.resources, record.seconds) for record in records), price_per_gpu_hour)


def spent_by(works: Iterable[tuple[Mapping[str, Any], float]], price_per_gpu_hour: float | None = None) -> Consumption:
    """Do the same for works that were given these resources for so many seconds."""
    seconds = cores = gpus = 0.0
    for given, took in works:
        hours = took / 3600
        workers = given.get("workers") or 1
        least = min(workers) if isinstance(workers, (list, tuple)) else workers
        seconds += took
        cores += hours * least * (given.get("cpus_per_worker") or given.get("cpus_per_task") or 1)
        gpus += hours * least * (given.get("gpus_per_worker") or given.get("gpus_per_task") or 0)
    return Consumption(seconds, cores, gpus, None if price_per_gpu_hour is None else gpus * price_per_gpu_hour)


def _gpu_hours(one: Planned, machine: Machine) -> float:
    """Hours of GPUs that the node holds: of ranks from the first step to the last, of tasks as long as they run."""
    costs, hours = one.estimate.costs, one.estimate.hours
    if costs is not None and hours is not None:
        return hours * costs.gpus
    return (one.estimate.flops or 0.0) / machine.gpu.flops() / 3600


def _core_hours(one: Planned) -> float:
    costs, hours = one.estimate.costs, one.estimate.hours
    return hours * costs.workers * costs.cores_per_worker if costs is not None and hours is not None else 0.0


def _times(hours: float, price: float | None) -> float | None:
    return None if price is None else hours * price


def _price(due: Sequence[Planned], gpu_hours: Sequence[float], machine: Machine) -> float | None:
    """What all of it costs; None where an hour has no price."""
    known = [one.price for one in due if one.price is not None]
    if machine.price_per_gpu_hour is None and (gpu_hours or not known):
        return None
    return sum(known)


def _on_gpus(node: Node, machine: Machine) -> bool:
    resources = node.resources
    given = getattr(resources, "gpus_per_worker", getattr(resources, "gpus_per_task", None))
    return given > 0 if given is not None else machine.num_gpus > 0


def _asked(node: Node) -> int:
    """Count the GPUs that a node explicitly asks for."""
    workers, each = getattr(node.resources, "workers", None), getattr(node.resources, "gpus_per_worker", None)
    most = max(workers) if isinstance(workers, tuple) else workers
    return (most or 0) * (each or 0)
