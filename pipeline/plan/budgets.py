"""Whether a plan keeps to a budget of hours or money, and if not, what would: of every node that is too long.

Hours are those of the whole graph, as the queue would run it; where no queue could, those of the longest node.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.schedule import Schedule
from vitpipe.pipeline.plan.sweep import SweptPoint

Workers = Callable[[str], Sequence[SweptPoint]]
"""Plans a node with other numbers of workers, the least first."""
Schedules = Callable[[Plan, int], Schedule]
"""Has the queue run a plan on so many GPUs."""
DOUBLINGS = 10
"""Of the GPUs, at most."""
NAMED = 3
"""Nodes that are named where none alone takes too long."""


@dataclass(frozen=True)
class Spending:
    """What a run may take; None is no limit."""

    hours: float | None = None
    price: float | None = None

    def check(self, plan: Plan, price: float | None, num_gpus: int, workers: Workers, schedules: Schedules) -> None:
        """UsageError where all of it takes more hours or costs more, with what would keep to it."""
        if self.hours is not None:
            _Hours(plan, self.hours, num_gpus, workers, schedules).check()
        if self.price is not None and price is None:
            found = "no GPU-hour has a price"
            do = "give --price-per-gpu-hour, price_per_hour by --gpus-file, or price_per_core_hour by --cluster-file"
            raise UsageError(f"plan for at most {self.price:g}", found, do)
        if self.price is not None and price is not None and price > self.price:
            gang = next((one for one in _longest(plan) if _is_gang(one)), None)
            points = [point for point in workers(gang.node) if point.planned] if gang else []
            do = _cheaper(plan, price, self.price, points)
            raise UsageError(f"plan for at most a price of {self.price:g}", f"it costs {price:.4g}", do)


class _Hours:
    """A limit in hours, and what is tried to keep to it."""

    def __init__(self, plan: Plan, limit: float, num_gpus: int, workers: Workers, schedules: Schedules) -> None:
        self._plan, self._limit, self._gpus = plan, limit, num_gpus
        self._workers, self._schedules = workers, schedules

    def check(self) -> None:
        """UsageError where it takes longer."""
        longest = _longest(self._plan)
        hours = self._whole()
        what = "the whole graph takes"
        if math.isinf(hours):
            hours, what = (_hours(longest[0]) if longest else 0.0), "no queue could run it, and its longest node takes"
        if hours <= self._limit:
            return
        over = [one for one in longest if _hours(one) > self._limit]
        told = " and ".join(f"{one.node} {_hours(one):.3g}" for one in over or longest[:NAMED])
        of = f"of them {told}" if over else f"no node alone takes more; the longest are {told}"
        found, given = f"{what} {hours:.3g} hours, {of}", self._gpus
        do = [self._shortened(one) for one in over] or self._quicker(longest)
        if over or not do:
            do += self._more_gpus(given)
        raise UsageError(f"plan for at most {self._limit:g} hours", found, "; ".join(do))

    def _whole(self, gpus: int | None = None) -> float:
        """Hours by the queue; infinite where it could never run."""
        schedule = self._schedules(self._plan, self._gpus if gpus is None else gpus)
        return math.inf if schedule.problem else schedule.seconds / 3600

    def _take(self, one: Planned) -> None:
        self._plan = Plan({**self._plan.nodes, one.node: one})
        costs = one.estimate.costs
        if self._gpus and costs is not None:
            self._gpus = max(self._gpus, math.ceil(costs.gpus))

    def _shortened(self, one: Planned) -> str:
        """Say what makes a node short enough, and go on with it."""
        if not _is_gang(one):
            return self._beside_each_other(one)
        points = [point for point in self._workers(one.node) if point.planned]
        if not points:
            return f"shorten {one.node}, no other number of workers can be planned"
        meeting = [point for point in points if _hours(point.planned) <= self._limit]
        chosen = meeting[0] if meeting else min(points, key=lambda point: _hours(point.planned))
        if chosen.planned is not None:
            self._take(chosen.planned)
        told = _told(one.node, chosen, _hours(chosen.planned), " hours")
        return f"take {told}" if meeting else f"shorten {one.node}: the least is with {told}"

    def _beside_each_other(self, one: Planned) -> str:
        """The same of a fan-out: as many of its tasks at once as it takes."""
        costs = one.estimate.costs
        phases = [phase for phase in costs.phases if phase.tasks] if costs else []
        if not phases or not self._gpus:
            return f"shorten {one.node}"
        most = max(phase.tasks for phase in phases)
        for at_once in range(1, most + 1):
            hours = sum(math.ceil(phase.tasks / at_once) * phase.seconds for phase in phases) / 3600
            gpus = math.ceil(at_once * phases[0].gpus)
            if hours <= self._limit and gpus > self._gpus:
                self._gpus = gpus
                return f"take {gpus} GPUs for {at_once} tasks of {one.node} at once, {hours:.4g} hours"
        hours = sum(phase.seconds for phase in phases) / 3600
        return f"shorten {one.node}: with all tasks of a phase at once it takes {hours:.3g} hours"

    def _quicker(self, longest: Sequence[Planned]) -> list[str]:
        """Where no node is too long: workers of the longest gang with which all of it is short enough."""
        gang = next((one for one in longest if _is_gang(one)), None)
        for point in self._workers(gang.node) if gang else ():
            if gang is None or point.planned is None or _hours(point.planned) >= _hours(gang):
                continue
            gpus = max(self._gpus, math.ceil(point.planned.estimate.costs.gpus if point.planned.estimate.costs else 0))
            schedule = self._schedules(Plan({**self._plan.nodes, point.planned.node: point.planned}), gpus)
            if not schedule.problem and schedule.seconds / 3600 <= self._limit:
                self._take(point.planned)
                return [f"take {_told(gang.node, point, schedule.seconds / 3600, ' hours for the whole graph')}"]
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
            return ["raise it, or shorten the run"]
        on = f" on {gpus} GPUs (--gpus {gpus})" if gpus > given else ""
        if hours <= self._limit:
            return [f"the whole graph then takes {hours:.4g} hours{on}"]
        return [f"the whole graph still takes {hours:.4g} hours{on}: raise it, or shorten the run"]


def _longest(plan: Plan) -> list[Planned]:
    """Nodes still to be run, the longest first."""
    return sorted(plan.having("run", "resume", "blocked"), key=_hours, reverse=True)


def _hours(one: Planned | None) -> float:
    return (one.estimate.hours or 0.0) if one else 0.0


def _is_gang(one: Planned) -> bool:
    costs = one.estimate.costs
    return costs is not None and any(phase.ranks for phase in costs.phases)


def _cheaper(plan: Plan, price: float, limit: float, points: Sequence[SweptPoint]) -> str:
    """Say with how many workers all of it costs no more."""
    known = [(cost, point) for point in points if (cost := _price(plan, price, point)) is not None]
    if not known:
        return "raise it, or shorten the run"
    meeting = [pair for pair in known if pair[0] <= limit]
    cost, point = meeting[0] if meeting else min(known, key=lambda pair: pair[0])
    told = _told(point.planned.node if point.planned else "", point, cost, "")
    return f"take {told}" if meeting else f"raise it, or shorten the run: the least is with {told}"


def _price(plan: Plan, whole: float, point: SweptPoint) -> float | None:
    """What all of it costs with this node as it is at the point."""
    one = point.planned
    if one is None or one.price is None:
        return None
    return whole - (plan.nodes[one.node].price or 0.0) + one.price


def _told(node: str, point: SweptPoint, cost: float, unit: str) -> str:
    return f"{point.value:g} worker{'' if point.value == 1 else 's'} for {node}, {cost:.4g}{unit}"
