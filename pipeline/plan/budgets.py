"""Whether a plan keeps to budgets of hours and money, and if not, what would.

Hours are those of the whole graph, as the queue would run it; money is for what nodes hold while they run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.counted import counted
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.prices import untimed
from vitpipe.pipeline.plan.shortening import (
    NAMED,
    RAISE,
    Schedules,
    Shortening,
    Workers,
    hours_of,
    is_gang,
    longest_nodes,
    workers_told,
)
from vitpipe.pipeline.plan.sweep import SweptPoint


@dataclass(frozen=True)
class _Way:
    """Another number of workers for the longest gang, and what all of it then takes."""

    node: str
    point: SweptPoint
    hours: float
    price: float | None
    more_gpus: int = 0
    """As many as the plan had, where this number of workers alone would ask for fewer."""

    def told(self) -> str:
        """`8 workers for backbone, 20 hours for the whole graph and a price of 30`."""
        price = "" if self.price is None else f" and a price of {self.price:.4g}"
        on = f" on {self.more_gpus:,} GPUs (--gpus {self.more_gpus})" if self.more_gpus else ""
        return f"{workers_told(self.node, self.point)}{on}, {self.hours:.4g} hours for the whole graph{price}"


@dataclass(frozen=True)
class Spending:
    """What a run may take; None is no limit."""

    hours: float | None = None
    price: float | None = None

    def check(self, plan: Plan, price: float | None, num_gpus: int, workers: Workers, schedules: Schedules) -> None:
        """UsageError where all of it takes more hours or costs more, with what would keep to both.

        And where nobody knows how long a training takes: no budget is kept by not knowing.
        """
        if (self.hours, self.price) != (None, None) and (unknown := untimed(plan)):
            raise UsageError(f"plan for at most {self._words()}", *_no_hours(unknown))
        if self.price is not None and price is None:
            raise UsageError(f"plan for at most {self._words()}", *_no_price(num_gpus))
        hours = schedules(plan, num_gpus).seconds / 3600 if self.hours is not None else 0.0
        is_long = self.hours is not None and hours > self.hours
        is_dear = self.price is not None and price is not None and price > self.price
        if not is_long and not is_dear:
            return
        found = [_takes(plan, hours, self.hours)] if is_long and self.hours is not None else []
        found += [f"it costs {price:.4g}"] if is_dear else []
        if self.price is None and self.hours is not None:
            do = Shortening(plan, self.hours, num_gpus, workers, schedules).advice()
        else:
            do = self._cheap(_ways(plan, price or 0.0, num_gpus, workers, schedules))
        raise UsageError(f"plan for at most {self._words()}", " and ".join(found), do)

    def _words(self) -> str:
        hours = [] if self.hours is None else [counted(self.hours, "hour", "g")]
        return " and ".join(hours + ([] if self.price is None else [f"a price of {self.price:g}"]))

    def _cheap(self, ways: Sequence[_Way]) -> str:
        """Say with how many workers all of it is the quickest that keeps to every budget; else what is nearest."""
        cheap = [way for way in ways if way.price is not None and self.price is not None and way.price <= self.price]
        if kept := [way for way in cheap if self.hours is None or way.hours <= self.hours]:
            return f"take {min([way for way in kept if not way.more_gpus] or kept, key=_quickest).told()}"
        if cheap:
            nearest = f"the quickest that costs no more is {min(cheap, key=_quickest).told()}"
            return f"raise one of them, or shorten the run: {nearest}"
        if not ways:
            return RAISE
        return f"{RAISE}: the least is with {min(ways, key=lambda way: way.price or 0.0).told()}"


def _quickest(way: _Way) -> tuple[float, int]:
    return way.hours, way.more_gpus


def _no_hours(unknown: Sequence[Planned]) -> tuple[str, str]:
    """Which trainings have no hours; why, their own lines of the plan say."""
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    names = ", ".join(one.node for one in unknown[:NAMED]) + more
    return f"nobody knows yet how long {names} will take", "plan without a limit, which says why"


def _no_price(num_gpus: int) -> tuple[str, str]:
    """What lacks, and how to give it."""
    if num_gpus:
        do = "give --price-per-gpu-hour, price_per_hour by --gpus-file, or price_per_core_hour by --cluster-file"
        return "no GPU-hour has a price", do
    return "it needs no GPU, and no core-hour has a price", "give price_per_core_hour by --cluster-file"


def _takes(plan: Plan, hours: float, limit: float) -> str:
    """Say how long it takes, and which nodes alone take too long."""
    longest = longest_nodes(plan)
    over = [one for one in longest if hours_of(one) > limit]
    words = [f"{one.node} {hours_of(one):.3g}" for one in over or longest[:NAMED]]
    words[NAMED:] = [f"{len(words) - NAMED} more"] if len(words) > NAMED else []
    told = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    of = f"of them {told}" if over else f"no node alone takes more; the longest are {told}"
    return f"the whole graph takes {hours:.3g} hours, {of}"


def _ways(plan: Plan, price: float, num_gpus: int, workers: Workers, schedules: Schedules) -> list[_Way]:
    """Try other workers for the longest gang, on as many GPUs as they ask for, and on as many as there were."""
    gang = next((one for one in longest_nodes(plan) if is_gang(one)), None)
    found = []
    for point in workers(gang.node) if gang else ():
        one = point.planned
        if gang is None or one is None:
            continue
        cost = None if one.price is None else price - (plan.nodes[one.node].price or 0.0) + one.price
        for more in (0, num_gpus) if num_gpus > point.num_gpus else (0,):
            schedule = schedules(Plan({**plan.nodes, one.node: one}), more or point.num_gpus)
            if not schedule.problem:
                found.append(_Way(gang.node, point, schedule.seconds / 3600, cost, more))
    return found
