"""Whether a plan keeps to a budget of hours or money, and if not, what would."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.plan.sweep import SweptPoint

Sweep = Callable[[], Sequence[SweptPoint]]
"""Plans other numbers of workers."""


@dataclass(frozen=True)
class Spending:
    """What a run may take; None is no limit."""

    hours: float | None = None
    price: float | None = None

    def check(self, plan: Plan, price: float | None, others: Sweep) -> None:
        """UsageError where the longest node takes more hours, or all of it costs more, with what would keep to it."""
        due = plan.having("run", "resume", "blocked")
        longest = max((one.estimate.hours or 0.0 for one in due), default=0.0)
        if self.hours is not None and longest > self.hours:
            points = [(point.planned.estimate.hours, point) for point in others() if point.planned]
            found = f"its longest node takes {longest:.3g} hours"
            raise _refusal(f"{self.hours:g} hours", found, self.hours, points, " hours")
        if self.price is not None and price is None:
            found = "no GPU-hour has a price"
            do = "give --price-per-gpu-hour, price_per_hour by --gpus-file, or price_per_core_hour by --cluster-file"
            raise UsageError(f"plan for at most {self.price:g}", found, do)
        if self.price is not None and price is not None and price > self.price:
            points = [(_price(plan, price, point), point) for point in others() if point.planned]
            raise _refusal(f"a price of {self.price:g}", f"it costs {price:.4g}", self.price, points, "")


def _price(plan: Plan, whole: float, point: SweptPoint) -> float | None:
    """What all of it costs with this node as it is at the point."""
    one = point.planned
    if one is None or one.price is None:
        return None
    return whole - (plan.nodes[one.node].price or 0.0) + one.price


def _refusal(
    asked: str, found: str, limit: float, points: Sequence[tuple[float | None, SweptPoint]], unit: str
) -> UsageError:
    known = [(cost, point) for cost, point in points if cost is not None]
    meeting = [pair for pair in known if pair[0] <= limit]
    if not known:
        do = "raise it, or shorten the run"
    elif meeting:
        do = f"take {_told(*meeting[0], unit)}"
    else:
        least = min(known, key=lambda pair: pair[0])
        do = f"raise it, or shorten the run: the least is with {_told(*least, unit)}"
    return UsageError(f"plan for at most {asked}", found, do)


def _told(cost: float, point: SweptPoint, unit: str) -> str:
    workers = f"{point.value:g} worker{'' if point.value == 1 else 's'}"
    return f"{workers} for {point.planned.node if point.planned else ''}, {cost:.4g}{unit}"
