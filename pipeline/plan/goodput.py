"""What share of its machines' time a pretraining would use, by its GPUs: simulated with the run's own policies.

Pure: a plan's estimate and the node's resources in, a trip for `infra.simulation` out.
"""

import math
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.cluster import AWAY_S
from vitpipe.infra.simulation.policies import SavesEach, hazards
from vitpipe.infra.simulation.road import Trip
from vitpipe.infra.simulation.training_model import TrainingModel
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.stages.costs.failures import stall_s, upload_s
from vitpipe.stages.costs.machines import ClusterFacts
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.memory import saved_bytes
from vitpipe.stages.training.objective_costs import num_trained


@dataclass(frozen=True)
class Circumstances:
    """What is assumed of the machines, as for a plan, and what a plan has no use for."""

    cluster: ClusterFacts
    spares: float = 0.02
    """Share of the machines that is rented beyond those that train."""
    repair_hours: float = 24.0
    preempt_days: float | None = None
    """Days of a machine between two announcements that it is taken away; None where none is."""
    away_hours: float = AWAY_S / 3600
    """Until a machine that was taken away is there again, or another."""
    person_s: float = 1800.0
    """Until somebody runs a command again that ended."""
    start_s: float | None = None
    """From having machines to the first step, in place of the cluster's `ranks_start_s` and `restart_s`."""
    stall_s: float | None = None
    """For which a checkpoint holds the ranks up, in place of `copy_bytes_per_s`."""
    commit_s: float | None = None
    """From there to its commit, in place of `store_gbit_per_s`."""

    @property
    def machine_days(self) -> float:
        """Days of eight GPUs between two interruptions."""
        return self.cluster.gpu_hours_between_failures / 24 / 8

    def to_json(self) -> dict[str, Any]:
        """Everything that is assumed, by the names of the cluster's file and of the options."""
        own = {name: value for name, value in vars(self).items() if name != "cluster"}
        measured = ("start_s", "stall_s", "commit_s")
        told = {name: value for name, value in own.items() if value is not None or name not in measured}
        return {**self.cluster.model_dump(), "machine_days": self.machine_days, **told}


def pretraining(graph: Graph, named: str | None) -> str:
    """Name the pretraining that is meant: the only one, or the one that is named. UsageError otherwise."""
    found = [id for id, node in graph.nodes.items() if isinstance(node.config, PretrainConfig)]
    if named in found:
        return named
    if named is None and len(found) == 1:
        return found[0]
    known = f"its pretrainings are {', '.join(found)}" if found else "the YAML has no pretraining"
    raise UsageError(f"simulate {named or 'a pretraining'}", known, "name one of them by --node" if found else "")


def trip(graph: Graph, plan: Plan, node: str, gpus: int, around: Circumstances) -> Trip:
    """Describe the training of `node` on so many GPUs, its units being machines. UsageError where it is not known.

    `plan` is one for these GPUs: it says how long a step takes.
    """
    asked = f"simulate {node} on {gpus} GPUs"
    config, resources = graph.nodes[node].config, graph.nodes[node].resources
    estimate = plan.nodes[node].estimate
    if not isinstance(config, PretrainConfig) or not isinstance(resources, PretrainResources):
        raise UsageError(asked, "it is no pretraining", "name one by --node")
    if not estimate.costs or not estimate.model or not estimate.steps:
        found = "its steps are not known before its images are"
        raise UsageError(asked, found, "ingest them first, or name their data set by vars.paper")
    if not estimate.costs.gpus:
        raise UsageError(asked, "its ranks train on cores (gpus_per_worker: 0)", "give each of them a GPU")
    each = min(around.cluster.gpus_per_machine, gpus)
    machines = math.ceil(gpus / each)
    saved = num_trained(config.objective, estimate.model) * saved_bytes(config)
    step_s = config.batch_images / estimate.costs.images_per_s
    least = math.ceil(machines * resources.least_workers / resources.most_workers)
    saves = SavesEach(estimate.costs.checkpoint_steps or estimate.steps, estimate.steps)
    model = _model(saves, resources, Size(least, machines, 0, each), gpus, step_s, saved, around)
    rented = machines + math.ceil(machines * around.spares)
    days = around.machine_days * 8 / each
    taken = math.inf if around.preempt_days is None else around.preempt_days
    dangers = hazards(days, around.repair_hours * 3600, taken, around.away_hours * 3600)
    return Trip({f"machine {number}": {"GPU": float(each)} for number in range(rented)}, model, dangers)


def _model(
    saves: SavesEach,
    resources: PretrainResources,
    size: Size,
    gpus: int,
    step_s: float,
    saved: float,
    around: Circumstances,
) -> TrainingModel:
    """Say what the training takes on machines as a plan assumes them; `saved` are a checkpoint's bytes."""
    cluster, machines = around.cluster, size.most
    again = max(0.0, cluster.restart_s - TrainingModel.loss_seen_s - TrainingModel.end_s)  # the loss is seen before
    return TrainingModel(
        total_steps=saves.total,
        step_seconds=lambda count: step_s * machines / count,
        next_save=saves,
        size=size,
        stall_s=stall_s(cluster, saved, gpus) if around.stall_s is None else around.stall_s,
        commit_s=upload_s(cluster, saved, machines) if around.commit_s is None else around.commit_s,
        start_s=again if around.start_s is None else around.start_s,
        first_start_s=cluster.ranks_start_s if around.start_s is None else around.start_s,
        hang_timeout_s=resources.hang_timeout_s,
        max_failures=resources.max_failures,
        person_s=around.person_s,
    )
