"""What share of its machines' time a pretraining would use, by its GPUs: simulated with the run's own policies.

Pure: a plan's estimate and the node's resources in, a trip for `infra.simulation` out.
"""

import math
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.policies import SavesEach, hazards
from vitpipe.infra.simulation.road import Trip
from vitpipe.infra.simulation.training_model import TrainingModel
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.graph import Graph, is_uri
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.job import SPLIT, ResolvedRecipe
from vitpipe.stages.pretrain.memory import saved_bytes
from vitpipe.stages.training.objective_costs import num_trained

_COPIED, _SENT, _ASKED_S = 2e9, 0.5e9, 2.0
"""Bytes a second out of a GPU and of a machine to the store, and seconds of the store's answers: assumed."""


@dataclass(frozen=True)
class Circumstances:
    """What a plan cannot know of machines and of the training on them."""

    gpus_per_machine: int = 8
    spares: float = 0.02
    """Share of the machines that is rented beyond those that train."""
    machine_days: float = 264.0
    """Days of a machine between two interruptions."""
    repair_hours: float = 24.0
    preempt_days: float | None = None
    """Days of a machine between two announcements that it is taken away; None where none is."""
    start_s: float = 120.0
    """From having machines to the first step."""
    stall_s: float | None = None
    """For which a checkpoint holds the ranks up; by default for as long as each GPU's part takes at 2 GB/s."""
    commit_s: float | None = None
    """From there to its commit; by default 2 s, and for as long as each machine's part takes at 0.5 GB/s."""
    person_s: float = 1800.0
    """Until somebody runs a command again that ended."""


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
    shards = [plan.nodes[ref].estimate for ref in graph.nodes[node].needs.get("shards", ()) if not is_uri(ref)]
    images = sum((one.splits or {}).get(SPLIT, 0) for one in shards)
    if not estimate.costs or not estimate.model or not images:
        found = "its steps are not known before its images are"
        raise UsageError(asked, found, "ingest them first, or name their data set by vars.paper")
    recipe = ResolvedRecipe(config, resources, images)
    each = min(around.gpus_per_machine, gpus)
    machines = math.ceil(gpus / each)
    least = math.ceil(machines * resources.least_workers / resources.most_workers)
    saved = num_trained(config.objective, estimate.model) * saved_bytes(config)
    step_s = config.batch_images / estimate.costs.images_per_s
    model = TrainingModel(
        total_steps=recipe.total_steps,
        step_seconds=lambda count: step_s * machines / count,
        next_save=SavesEach(recipe.checkpoint_steps, recipe.total_steps),
        size=Size(least, machines, 0, each),
        stall_s=saved / gpus / _COPIED if around.stall_s is None else around.stall_s,
        commit_s=_ASKED_S + saved / machines / _SENT if around.commit_s is None else around.commit_s,
        start_s=around.start_s,
        hang_timeout_s=resources.hang_timeout_s,
        max_failures=resources.max_failures,
        person_s=around.person_s,
    )
    rented = machines + math.ceil(machines * around.spares)
    days = around.machine_days * 8 / each
    taken = math.inf if around.preempt_days is None else around.preempt_days
    dangers = hazards(days, around.repair_hours * 3600, taken)
    return Trip({f"machine {number}": {"GPU": float(each)} for number in range(rented)}, model, dangers)
