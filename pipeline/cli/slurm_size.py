"""How large a Slurm job has to be for what a YAML asks: nodes, and the CPUs of each. Knows no script."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli.slurm_wishes import Wishes
from vitpipe.pipeline.spec.graph import Graph


@dataclass(frozen=True)
class JobSize:
    """A job's nodes, all alike."""

    nodes: int
    cpus: int
    """CPUs of one node."""

    @classmethod
    def of(cls, graphs: Iterable[Graph], wishes: Wishes) -> Self:
        """Reckon what was not said from the largest gang. UsageError when what was said is too little for one."""
        gangs, tasks = _asked(graphs, wishes.gpus)
        nodes = wishes.nodes or max((gang.nodes(wishes) for gang in gangs), default=1)
        each = max((math.ceil(gang.most / nodes) * gang.cpus for gang in gangs), default=1)
        cpus = wishes.cpus_per_node or max(each, math.ceil(tasks))
        for gang in gangs:
            gang.require(nodes, cpus, wishes.gpus)
        return cls(nodes, cpus)


@dataclass(frozen=True)
class _Gang:
    node: str
    least: int
    most: int
    cpus: int
    gpus: int

    def nodes(self, wishes: Wishes) -> int:
        """Nodes that all ranks need, if each has what was said of one."""
        if self.gpus and wishes.gpus:
            return math.ceil(self.most * self.gpus / wishes.gpus)
        fit = (wishes.cpus_per_node or self.most * self.cpus) // self.cpus
        return math.ceil(self.most / max(1, fit))

    def require(self, nodes: int, cpus: int, gpus: int) -> None:
        asked = f"submit {self.node} to Slurm"
        if self.gpus and not gpus:
            raise UsageError(asked, "each rank asks for a GPU, and the job has none", "give --gpus-per-node")
        fit = min(cpus // self.cpus, gpus // self.gpus if self.gpus else cpus)
        if nodes * fit < self.least:
            has = f"{nodes} x ({cpus} CPUs, {gpus} GPUs) hold {nodes * fit} ranks"
            found = f"{has} of {self.cpus} CPUs and {self.gpus} GPUs, and it asks for {self.least}"
            raise UsageError(asked, found, "raise --nodes, --gpus-per-node or --cpus-per-node, or lower `workers`")


def _asked(graphs: Iterable[Graph], gpus: int) -> tuple[list[_Gang], float]:
    """Gangs of all graphs, and the most CPUs that one task has."""
    gangs, tasks = [], 1.0
    for graph in graphs:
        for id, node in graph.nodes.items():
            workers = getattr(node.resources, "workers", None)
            if workers is None:
                tasks = max(tasks, float(getattr(node.resources, "cpus_per_task", 1) or 1))
                continue
            least, most = (workers, workers) if isinstance(workers, int) else workers
            own = node.resources.gpus_per_worker  # type: ignore[attr-defined]  # as every gang's resources
            cpus = int(getattr(node.resources, "cpus_per_worker", None) or 1)
            gangs.append(_Gang(id, least, most, cpus, min(1, gpus) if own is None else own))
    return gangs, tasks
