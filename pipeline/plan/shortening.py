"""What makes a plan that takes too many hours short enough: workers of gangs, GPUs for the tasks of fan-outs."""

import math
from collections.abc import Callable, Sequence

from vitpipe.pipeline.plan.counted import counted
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.schedule import Schedule
from vitpipe.pipeline.plan.sweep import SweptPoint
from vitpipe.stages.costs.tasks import in_turn

Workers = Callable[[str], Sequence[SweptPoint]]
"""Plans a node with other numbers of workers, the least first."""
Schedules = Callable[[Plan, int], Schedule]
"""Has the queue run a plan on so many GPUs."""
RAISE = "raise it, or shorten the run"
DOUBLINGS = 10
"""Of the GPUs, at most."""
NAMED = 3
"""Nodes that a message names."""


class Shortening:
    """A limit in hours, and what is tried to keep to it."""

    def __init__(self, plan: Plan, limit: float, num_gpus: int, workers: Workers, schedules: Schedules) -> None:
        self._plan, self._limit, self._gpus = plan, limit, num_gpus
        self._workers, self._schedules = workers, schedules

    def advice(self) -> str:
        """Say what helps each node that alone takes too long, else the longest gang, and how long all then takes."""
        longest, given = longest_nodes(self._plan), self._gpus
        over = [one for one in longest if hours_of(one) > self._limit]
        do = [self._shortened(one) for one in over] or self._quicker(longest)
        if len(do) > NAMED:
            do[NAMED:] = [f"{len(do) - NAMED} more nodes are too long as well"]
        if over or not do:
            do += self._more_gpus(given)
        return "; ".join(do)

    def _whole(self, gpus: int | None = None) -> float:
        """Hours by the queue; infinite where it could never run."""
        schedule = self._schedules(self._plan, self._gpus if gpus is None else gpus)
        return math.inf if schedule.problem else schedule.seconds / 3600

    def _take(self, point: SweptPoint) -> None:
        if point.planned is not None:
            self._plan = Plan({**self._plan.nodes, point.planned.node: point.planned})
            self._gpus = max(self._gpus, point.num_gpus)

    def _shortened(self, one: Planned) -> str:
        """Say what makes a node short enough, and go on with it."""
        if not is_gang(one):
            return self._beside_each_other(one)
        points = [point for point in self._workers(one.node) if point.planned]
        if not points:
            return f"shorten {one.node}, no other number of workers can be planned"
        meeting = [point for point in points if hours_of(point.planned) <= self._limit]
        chosen = meeting[0] if meeting else min(points, key=lambda point: hours_of(point.planned))
        self._take(chosen)
        told = f"{workers_told(one.node, chosen)}, {hours_of(chosen.planned):.4g} hours"
        return f"take {told}" if meeting else f"shorten {one.node}: the least is with {told}"

    def _beside_each_other(self, one: Planned) -> str:
        """The same of a fan-out: as many of its tasks at once as it takes."""
        phases = [phase for phase in one.work_phases if phase.tasks and phase.gpus]
        if not phases or not self._gpus:
            return f"shorten {one.node}"
        for at_once in range(1, max(phase.tasks for phase in phases) + 1):
            hours, gpus = in_turn(phases, at_once) / 3600, math.ceil(at_once * phases[0].gpus)
            if hours <= self._limit:
                if gpus <= self._gpus:
                    return f"{one.node} then takes {hours:.4g} hours"
                self._gpus = gpus
                return f"take {gpus:,} GPUs for {at_once} tasks of {one.node} at once, {hours:.4g} hours"
        hours, part = sum(phase.seconds for phase in phases) / 3600, phases[0].gpus
        so = f", each on {part:g} of a GPU: a larger part (resources.gpus_per_task) may take less" if part < 1 else ""
        if one.estimate.costs and one.estimate.costs.binds == "images":
            so = ", bound by images: more cores for each (resources.cpus_per_task) may take less"
        return f"shorten {one.node}: with all tasks of a phase at once it takes {hours:.3g} hours{so}"

    def _quicker(self, longest: Sequence[Planned]) -> list[str]:
        """Where no node is too long: workers of the longest gang with which all of it is short enough."""
        gang = next((one for one in longest if is_gang(one)), None)
        for point in self._workers(gang.node) if gang else ():
            one = point.planned
            if gang is None or one is None or hours_of(one) >= hours_of(gang):
                continue
            schedule = self._schedules(Plan({**self._plan.nodes, one.node: one}), max(self._gpus, point.num_gpus))
            hours = schedule.seconds / 3600
            if not schedule.problem and hours <= self._limit:
                return [f"take {workers_told(gang.node, point)}, {hours:.4g} hours for the whole graph"]
        return []

    def _more_gpus(self, given: int) -> list[str]:
        """Say how long all of it then takes, and on how many GPUs that is."""
        hours, gpus = self._whole(), self._gpus
        for doubled in range(1, DOUBLINGS + 1):
            if hours <= self._limit or not gpus:
                break
            more = self._whole(self._gpus * 2**doubled)
            if more >= hours:
                break
            hours, gpus = more, self._gpus * 2**doubled
        if math.isinf(hours):
            return [RAISE]
        on = f" on {gpus:,} GPUs (--gpus {gpus})" if gpus > given else ""
        if hours <= self._limit:
            return [f"the whole graph then takes {hours:.4g} hours{on}"]
        return [f"the whole graph still takes {hours:.4g} hours{on}: {RAISE}"]


def longest_nodes(plan: Plan) -> list[Planned]:
    """Nodes still to be run, the longest first."""
    return sorted(plan.having("run", "resume", "blocked"), key=hours_of, reverse=True)


def hours_of(one: Planned | None) -> float:
    """Hours of a node alone; 0 where nobody knows them."""
    return (one.estimate.hours or 0.0) if one else 0.0


def is_gang(one: Planned) -> bool:
    """Whether a node is ranks in lockstep, whose number can be another."""
    return any(phase.ranks for phase in one.work_phases)


def workers_told(node: str, point: SweptPoint) -> str:
    """Write a number of workers, and what goes with it: `64 workers with micro_batch 8 for backbone`."""
    also = f" with {point.also}" if point.also else ""
    return f"{counted(point.value, 'worker', 'g')}{also} for {node}"
