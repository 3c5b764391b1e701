"""How long a plan's work takes on GPUs of a stated kind, and what it costs: by a vendor's peak and an assumed share."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.stages.estimates import Known
from vitpipe.stages.record import Record


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU and how much of it a training keeps busy."""

    name: str
    peak_flops: float
    """Dense bf16 FLOP/s by its data sheet."""
    utilisation: float
    """Share of the peak that is assumed to become the model's FLOPs; measured runs are in docs/runs.md."""
    memory_bytes: float
    """By its data sheet; for the A100 the larger kind's."""

    @property
    def flops(self) -> float:
        """FLOP/s that a model is assumed to reach on one such GPU."""
        return self.peak_flops * self.utilisation


_KINDS = (Gpu("A100", 312e12, 0.45, 80e9), Gpu("H100", 989e12, 0.40, 80e9), Gpu("H200", 989e12, 0.40, 141e9))
GPUS = {gpu.name: gpu for gpu in _KINDS}
DEFAULT = "H100"


@dataclass(frozen=True)
class Machine:
    """What the hours of a plan assume."""

    gpu: Gpu
    num_gpus: int
    """GPUs of the whole cluster; with 0 the work is on CPU cores."""
    price_per_gpu_hour: float | None = None

    @property
    def known(self) -> Known:
        """The same as estimates take it."""
        return Known(gpu_flops=self.gpu.flops, gpus=self.num_gpus, gpu_bytes=self.gpu.memory_bytes)

    @property
    def assumption(self) -> str:
        """The speeds behind every number of hours, in words."""
        gpu, core = self.gpu, f"{self.known.cpu_flops / 1e9:.0f} GFLOP/s on a CPU core"
        if not self.num_gpus:
            return f"hours assume no GPU and {core}"
        sustained = f"{gpu.utilisation:.0%} of its {gpu.peak_flops / 1e12:.0f} bf16 TFLOP/s"
        return f"hours assume {self.num_gpus} x {gpu.name} at {sustained}, and {core}"


def machine(graph: Graph, gpu: str | None, gpus: int | None, price: float | None) -> Machine:
    """Describe the cluster that a plan is for; what is left out follows from what the pretrainings ask for.

    UsageError for a GPU that is not in the table.
    """
    kind = GPUS.get((gpu or DEFAULT).upper())
    if kind is None:
        raise UsageError(f"plan for the GPU {gpu}", f"known are {', '.join(GPUS)}", "name one of them")
    asked = max((_asked(node) for node in graph.nodes.values()), default=0)
    return Machine(kind, gpus if gpus is not None else asked or int(gpu is not None), price)


def priced(plan: Plan, graph: Graph, machine: Machine) -> Plan:
    """Add GPU-hours to every node that computes on GPUs, and their price where one is given."""
    each = machine.price_per_gpu_hour
    nodes = dict(plan.nodes)
    for id, one in plan.nodes.items():
        if one.estimate.flops is not None and one.action != "reuse" and _on_gpus(graph.nodes[id], machine):
            hours = one.estimate.flops / machine.gpu.flops / 3600
            nodes[id] = replace(one, gpu_hours=hours, price=None if each is None else hours * each)
    return Plan(nodes)


def total(plan: Plan, machine: Machine) -> dict[str, Any]:
    """Add up all that is still to be run, for `plan --json`."""
    due = plan.having("run", "resume", "blocked")
    hours = [one.gpu_hours for one in due if one.gpu_hours is not None]
    flops = [one.estimate.flops for one in due if one.estimate.flops is not None]
    return {
        "flops": sum(flops),
        "gpu_hours": sum(hours),
        "price": sum(hours) * machine.price_per_gpu_hour if machine.price_per_gpu_hour is not None else None,
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


def _on_gpus(node: Node, machine: Machine) -> bool:
    resources = node.resources
    given = getattr(resources, "gpus_per_worker", getattr(resources, "gpus_per_task", None))
    return given > 0 if given is not None else machine.num_gpus > 0


def _asked(node: Node) -> int:
    """Count the GPUs that a node explicitly asks for."""
    workers, each = getattr(node.resources, "workers", None), getattr(node.resources, "gpus_per_worker", None)
    most = max(workers) if isinstance(workers, tuple) else workers
    return (most or 0) * (each or 0)
