"""A sweep as a table with bars for a terminal. Knows no plan but its points."""

from collections.abc import Iterator, Sequence

from vitpipe.pipeline.cli.display import duration, short
from vitpipe.pipeline.plan.sweep import Swept, SweptPoint
from vitpipe.pipeline.plan.sweep_values import written

BAR = 30


def sweep_lines(swept: Swept, points: Sequence[SweptPoint], letter: str = "█") -> Iterator[str]:
    """Write a line for each value: hours, images a second with a bar, what binds, GPU-hours, price.

    Memory is written where it is not the same at all of them.
    """
    known = [point for point in points if point.planned is not None]
    most = max(rate(point) for point in known)
    width = max(len(written(point.value)) for point in points)
    with_memory = len({point.planned.estimate.memory_bytes for point in known if point.planned}) > 1
    node = known[0].planned
    yield f"{swept.path}{f' in {swept.unit}' if swept.unit else ''}, {node.node if node else ''}:"
    for point in points:
        value = written(point.value).rjust(width)
        if point.planned is None:
            yield f"{value}  {point.problem}"
            continue
        bar = letter * max(1, round(BAR * rate(point) / most)) if most else ""
        yield f"{value}  {bar:<{BAR}}  {', '.join(_words(point, with_memory))}"


def _words(point: SweptPoint, with_memory: bool = False) -> Iterator[str]:
    one = point.planned
    assert one is not None
    costs, hours = one.estimate.costs, one.estimate.hours or 0.0
    yield duration(max(hours * 3600, 1))
    if costs is not None:
        yield f"{short(costs.images_per_s)} images/s"
        yield f"bound by {costs.binds}"
    if with_memory and one.estimate.memory_bytes is not None:
        yield f"memory {short(one.estimate.memory_bytes, 'B')}"
    if one.gpu_hours is not None:
        yield f"{short(one.gpu_hours)} GPU-hours"
    if one.energy_kwh is not None:
        yield f"{short(one.energy_kwh)} kWh"
    if one.price is not None:
        yield f"price {short(one.price)}"
    if point.also:
        yield point.also


def rate(point: SweptPoint) -> float:
    """Count images a second, or where a node has none its inverse hours."""
    one = point.planned
    if one is None or not one.estimate.hours:
        return 0.0
    return one.estimate.costs.images_per_s if one.estimate.costs else 1 / one.estimate.hours
