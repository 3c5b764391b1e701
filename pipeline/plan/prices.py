"""How long a plan's work takes on GPUs of a stated kind, and what it costs: and what binds it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vitpipe.pipeline.plan.given_machines import gpu_kind, gpu_kinds
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.stages.costs.machines import DEFAULT_SHARE, ClusterFacts, GpuKind
from vitpipe.stages.estimates import Known

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
    is_here: bool = True
    """Whether those are of the machine that plans, not of machines that the cluster describes."""
    is_asked_by_spec: bool = True
    """Whether the number of GPUs follows from what the nodes ask for."""
    has_fp32: bool = False
    """Whether a node computes in fp32."""

    @property
    def known(self) -> Known:
        """The same as estimates take it."""
        return Known(
            gpu_flops=self.gpu.peak_flops * self.gpu.share(),
            gpus=self.num_gpus,
            gpu_bytes=self.gpu.memory_bytes,
            gpu=self.gpu,
            cluster=self.cluster,
            cores=self.cores,
            is_one_machine=self.is_here,
            host_bytes=_memory_here() if self.is_here and not self.num_gpus else 0.0,
        )

    def assumption(self, swept: str = "") -> str:
        """Say the speeds behind every number of hours; of what is `swept`, that each row has its own."""
        of_row = f"{swept.rsplit('.', 1)[-1]} as in each row"

        def told(field: str, words: str) -> str:
            return of_row if swept == field else words

        if swept == "core_gflops":
            core = f"CPU cores of {of_row}"
        elif self.cluster.core_gflops is None:
            core = f"{self.known.cpu_flops / 1e9:.0f} GFLOP/s on a CPU core"
        else:
            core = f"CPU cores of {self.cluster.core_gflops:.0f} GFLOP/s"
        if not self.num_gpus:
            each = self.cluster.cores_per_machine
            return f"hours assume no GPU{'' if self.is_here else f', {self.cores // each} x {each} cores'} and {core}"
        asks = swept.endswith((".resources.workers", ".resources.gpus_per_worker")) and self.is_asked_by_spec
        gpus = f"as many {self.name} as each row asks for" if asks else f"{self.num_gpus:,} x {self.name}"
        between = told("network_gbit_per_s", f"{self.cluster.network_gbit_per_s:g} Gbit/s")
        links = f"{between} between machines of {told('gpus_per_machine', str(self.cluster.gpus_per_machine))}"
        store = told("store_gbit_per_s", f"{self.cluster.store_gbit_per_s:g} Gbit/s")
        return f"hours assume {gpus} at {self._utilisation()}, {links}, {store} from the store, and {core}"

    def _utilisation(self) -> str:
        """`40% (L/16 48%) of its 989 bf16 TFLOP/s`."""
        named = ", ".join(
            f"{name} {share:.0%}" for name, share in self.gpu.utilisation.items() if name != DEFAULT_SHARE
        )
        peaks = f"{_tera(self.gpu.peak_flops)} bf16 TFLOP/s"
        if self.has_fp32 and self.gpu.peak_flops_fp32:
            peaks += f" or {_tera(self.gpu.peak_flops_fp32)} in fp32 without TF32"
        elif self.has_fp32:
            peaks += " (none is known in fp32)"
        return f"{self.gpu.share():.0%}{f' ({named})' if named else ''} of its {peaks}"


def _tera(flops: float) -> str:
    return f"{flops / 1e12:,.0f}" if flops >= 1e15 else f"{flops / 1e12:.3g}"


def machine(
    graph: Graph,
    gpu: str | None = None,
    gpus: int | None = None,
    price: float | None = None,
    kinds: Mapping[str, GpuKind] | None = None,
    cluster: ClusterFacts = ASSUMED,
    cores: int | None = 1,
) -> Machine:
    """Describe the cluster that a plan is for; what is left out follows from what the pretrainings ask for.

    `cores` are those of this machine, for a plan without GPUs; None for as many machines of the cluster as are asked.
    UsageError for a GPU that is not in the table.
    """
    name, kind = gpu_kind(kinds if kinds is not None else gpu_kinds(), DEFAULT if gpu is None else gpu)
    unsaid = int(gpu is not None)
    asked = max((_asked(node, unsaid) for node in graph.nodes.values()), default=0)
    num_gpus = gpus if gpus is not None else asked or unsaid
    each = price if price is not None else kind.price_per_hour
    has_fp32 = any(getattr(node.config, "precision", None) == "fp32" for node in graph.nodes.values())
    is_here, count = cores is not None, cores
    if count is None:
        machines = max((_machines_asked(node, cluster) for node in graph.nodes.values()), default=1)
        count = machines * cluster.cores_per_machine
    return Machine(name, kind, num_gpus, each, cluster, count, is_here, gpus is None, has_fp32)


def priced(plan: Plan, graph: Graph, machine: Machine) -> Plan:
    """Add GPU-hours to every node that computes on GPUs, its energy, and its price where one is given."""
    nodes = dict(plan.nodes)
    for id, one in plan.nodes.items():
        if one.estimate.flops is None or one.action == "reuse":
            continue
        if _on_gpus(graph.nodes[id], machine):
            precision = getattr(graph.nodes[id].config, "precision", "bf16")
            speed = machine.gpu.flops(precision=precision)
            if speed is None:
                continue  # nobody knows how long it takes
            alone = one.estimate.flops / speed / 3600
            hours = _gpu_hours(one, alone)
            energy = hours * machine.gpu.watts / 1000 + _core_hours(one, machine) * machine.cluster.core_watts / 1000
            nodes[id] = replace(
                one,
                gpu_hours=hours,
                compute_gpu_hours=alone,
                price=_times(hours, machine.price_per_gpu_hour),
                energy_kwh=energy,
            )
        else:
            hours = _core_hours(one, machine)
            energy = hours * machine.cluster.core_watts / 1000
            nodes[id] = replace(one, price=_times(hours, machine.cluster.price_per_core_hour), energy_kwh=energy)
    return Plan(nodes)


def _memory_here() -> float:
    """Bytes of this machine's memory; 0 where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return 0.0


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
        "unknown": [one.node for one in untimed(plan)],
    }


def _gpu_hours(one: Planned, alone: float) -> float:
    """Hours of GPUs that the node holds: of ranks from the first step to the last, of tasks as long as they run."""
    held = sum(phase.held_seconds * phase.gpus for phase in one.work_phases)
    return held / 3600 if one.work_phases else alone


def _core_hours(one: Planned, machine: Machine) -> float:
    """Hours of cores that the queue gives; where more are asked for than there are, those that there are."""
    seconds = 0.0
    for phase in one.work_phases:
        part = machine.known.part_of_cores(phase.cpus * max(1, phase.ranks))
        seconds += phase.held_seconds * phase.cpus * part
    return seconds / 3600


def untimed(plan: Plan) -> list[Planned]:
    """List what adds nothing to the sum of what is still to be run, for its size or its GPU's speed are not known."""

    def is_untimed(one: Planned) -> bool:
        trains = one.estimate.flops is not None or one.stage in ("pretrain", "finetune")
        return trains and one.estimate.hours is None

    return [one for one in plan.having("run", "resume", "blocked") if is_untimed(one)]


def _times(hours: float, price: float | None) -> float | None:
    return None if price is None else hours * price


def _price(due: Sequence[Planned], gpu_hours: Sequence[float], machine: Machine) -> float | None:
    """What all of it costs; None where an hour has no price: of GPUs, or of cores where none are needed."""
    known, computes = [one.price for one in due if one.price is not None], any(one.energy_kwh for one in due)
    if not known and (computes or machine.price_per_gpu_hour is None):
        return None
    if machine.price_per_gpu_hour is None and gpu_hours:
        return None
    return sum(known)


def _on_gpus(node: Node, machine: Machine) -> bool:
    resources = node.resources
    given = getattr(resources, "gpus_per_worker", getattr(resources, "gpus_per_task", None))
    return given > 0 if given is not None else machine.num_gpus > 0


def _machines_asked(node: Node, cluster: ClusterFacts) -> int:
    """Count the machines that a node's ranks fill by their cores."""
    each = getattr(node.resources, "cpus_per_worker", None) or 1
    return max(1, cluster.machines_for(getattr(node.resources, "most_workers", 1), 0, each))


def _asked(node: Node, unsaid: int) -> int:
    """Count the GPUs that a node asks for; `unsaid` is what a worker has where it does not say."""
    each = getattr(node.resources, "gpus_per_worker", None)
    return getattr(node.resources, "most_workers", 0) * (unsaid if each is None else each)
