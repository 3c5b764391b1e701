"""The ranks of one start as actors: begun in their places, asked how they are, and ended for certain."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import ObjectRef, cloudpickle
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra.errors import Lost
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.capacity import machines
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.gang_notes import RankProcess
from vitpipe.infra.ray.gang_places import Spot
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.ray.rank_actor import RankActor
from vitpipe.infra.work import Job, Rank

END_S = 90.0
"""Time for a task of ours to start on a machine and see the end of its ranks."""
TRIES = 3
"""Tries of such a task: what ended a rank may end it too."""
LEAVE_S = 10.0


@dataclass
class Ranks:
    """Actors of one start, and where they are as far as is known."""

    actors: list[ActorHandle]
    asked: str
    """For messages: `run 2 ranks of backbone`."""
    work: ObjectRef
    places: dict[int, RankProcess] = field(default_factory=dict)

    def end(self) -> dict[int, str]:
        """End them, each with its stacks in its log; the step that each had noted, where its machine still answers.

        Lost when one may live on: the gang that is started next must be alone.
        """
        nodes = {place.node for place in self.places.values()} & machines().keys()
        ranks = {node: [rank for rank, place in self.places.items() if place.node == node] for node in nodes}
        tasks = {node: _on(node).remote([self.places[rank].who for rank in ranks[node]]) for node in nodes}
        found: dict[int, str] = {}
        until = time.monotonic() + END_S
        for node, task in tasks.items():
            try:
                found |= dict(zip(ranks[node], ray.get(task, timeout=max(1.0, until - time.monotonic())), strict=True))
            except RayError as error:
                if node in machines():  # one that is drained takes no task, for one
                    self._end_themselves(ranks[node], error)
        return found

    def _end_themselves(self, ranks: Sequence[int], why: RayError) -> None:
        ending = {self.actors[rank].end.remote(): rank for rank in ranks}
        ray.wait(list(ending), num_returns=len(ending), timeout=LEAVE_S)
        living = [rank for one, rank in ending.items() if not _died(one)]
        if living and {self.places[rank].node for rank in living} & machines().keys():
            who = ", ".join(str(self.places[rank].who) for rank in living)
            words = f"{who} may still live: {in_words(why)}"
            raise Lost(self.asked, words, "end them, then run the same command again") from why

    def leave(self) -> None:
        """Have ranks that are done leave their group, so that none complains of another's end."""
        leaving = [actor.leave.remote() for actor in self.actors]
        ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE_S)


def begin(fn: Callable[[Rank], None], job: Job, size: Size, spots: Sequence[Spot], asked: str) -> Ranks:
    """Start the ranks' processes, named as the YAML names the node. They do nothing yet.

    They end with this driver. Each start has a namespace of its own: ranks of a driver that hangs, and whose run was
    taken over, still have their names, and so for a moment has one that was just ended.
    """
    name = f"{job.run}/{job.node}"
    made = ray.remote(type(job.node, (RankActor,), {}))
    namespace = f"{name} {secrets.token_hex(4)}"
    # beats are no work of the run: among the dashboard's tasks they would be thousands
    options: dict[str, Any] = {"num_cpus": size.cpus, "num_gpus": size.gpus, "namespace": namespace}
    options["enable_task_events"] = False
    actors = [
        made.options(name=f"{name}[{rank}]", scheduling_strategy=spot.strategy(), **options).remote(f"{name}[{rank}]")
        for rank, spot in enumerate(spots)
    ]
    return Ranks(actors, asked, ray.put(cloudpickle.dumps((fn, job))))


def _died(call: ObjectRef) -> bool:
    """Whether a call ended because its actor is dead, as opposed to out of reach."""
    try:
        ray.get(call, timeout=0)
    except ActorDiedError:
        return True
    except RayError:
        return False
    return False


def _on(node: str) -> Any:
    """The task that ends processes of that machine."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(on_worker.end_all).options(num_cpus=0, max_retries=TRIES, scheduling_strategy=there)
