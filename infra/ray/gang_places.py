"""The machines' room for one start of a gang: taken, added to while more is wanted, and given back.

The fewest ranks have one placement group, which Ray fills at once or not at all; each rank more has one of its own.
What is still wanted stays asked for, so that an autoscaler sees it.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from vitpipe.infra.errors import Lost
from vitpipe.infra.ray import capacity
from vitpipe.infra.ray.cluster_life import cluster_gone, leaving
from vitpipe.infra.ray.demand import nothing
from vitpipe.infra.ray.fanout import LOOK_S
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.ray.head import ask_head
from vitpipe.infra.ray.patience import Patience
from vitpipe.infra.work import Job

STIR_S = 10.0
"""Machines are asked again what they have free after so long without room."""
GATHER_S = 10.0
"""How long a start waits for more than the fewest ranks, where the machines could hold them."""


@dataclass(frozen=True)
class Spot:
    """Where one rank goes."""

    node: str
    """Ray's id of its machine."""
    group: PlacementGroup
    bundle: int

    def strategy(self) -> PlacementGroupSchedulingStrategy:
        """What an actor is told to be put there."""
        return PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.bundle)


@dataclass
class Places:
    """Placement groups of one start."""

    fewest: PlacementGroup
    more: list[PlacementGroup] = field(default_factory=list)
    is_lost: bool = False
    """Whether the cluster is gone, and nothing can be given back to it."""
    _taken: int = 0

    def take(self) -> list[Spot]:
        """Take all room that is there now; those of one machine stand together."""
        table = _groups()
        ready = [self.fewest, *self._ready(table)]
        self._taken = len(ready) - 1
        spots = [
            Spot(node, group, int(bundle))
            for group in ready
            for bundle, node in table[group.id.hex()]["bundles_to_node_id"].items()
        ]
        return sorted(spots, key=lambda spot: spot.node)  # stable: bundles of a machine stay in their order

    def added(self) -> int:
        """Count the ranks for which room has come since it was taken."""
        return len(self._ready(_groups())) - self._taken if len(self.more) > self._taken else 0

    def _ready(self, table: dict[str, Any]) -> list[PlacementGroup]:
        return [one for one in self.more if table.get(one.id.hex(), {}).get("state") == "CREATED"]


@contextmanager
def places(job: Job, size: Size, patience: Patience) -> Iterator[Places]:
    """Have room for the gang, and give it back, which ends whatever runs there.

    Errors: those of `job.ask_to_stop` and `patience.check`, while room is waited for.
    """
    taken: list[PlacementGroup] = []

    def ask(count: int) -> PlacementGroup:
        # no two groups of one namespace may share a name, those of a driver that hangs and is taken over included
        name = f"{job.run}/{job.node} {secrets.token_hex(4)}"
        taken.append(placement_group([size.bundle] * count, strategy="PACK", name=name))
        return taken[-1]

    def wait() -> None:
        job.ask_to_stop()
        patience.check()

    is_lost = False
    try:
        found, stirred = Places(ask(size.least)), time.monotonic()
        while not found.fewest.wait(LOOK_S):
            wait()
            if time.monotonic() - stirred > STIR_S:
                _stir()
                stirred = time.monotonic()
        found.more = [ask(1) for _ in range(size.most - size.least)]
        _gather(found, size, wait)
        try:
            yield found
        finally:
            is_lost = found.is_lost
    except (RayError, Lost):
        is_lost = is_lost or cluster_gone() is not None
        raise
    finally:
        if not is_lost and not leaving.is_set():  # else Ray would wait for it
            for group in taken:
                remove_placement_group(group)


def _groups() -> dict[str, Any]:
    return ask_head("look for room for the ranks", placement_group_table)


def _stir() -> None:
    """Have every machine take and give back a hundredth of a core.

    Ray's head takes a bundle's room from what it believes to be free before it asks the machine, and does not give it
    back where that does not answer, as one that has just joined. It believes so until the machine has other news.
    """
    little: dict[str, Any] = {"num_cpus": 0.01, "max_retries": 0, "enable_task_events": False}
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in capacity.machines()]
    asked = [ray.remote(nothing).options(**little, scheduling_strategy=one).remote() for one in there]
    _, late = ray.wait(asked, num_returns=len(asked), timeout=LOOK_S) if asked else ([], [])
    for one in late:  # there is nothing free, then
        ray.cancel(one)


def _gather(found: Places, size: Size, wait: Callable[[], None]) -> None:
    """Wait a while for as many ranks as the machines that are there could hold."""
    if not found.more:
        return
    until = time.monotonic() + GATHER_S
    while found.added() < size.reachable(capacity.room(size.bundle)) - size.least and time.monotonic() < until:
        wait()
        time.sleep(LOOK_S / 10)
