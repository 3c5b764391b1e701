"""A sweep as a table with bars for a terminal, and as an SVG that stands by itself. Knows no plan but its points."""

import math
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup, escape

from vitpipe.pipeline.cli.display import duration, short
from vitpipe.pipeline.plan.sweep import Swept, SweptPoint
from vitpipe.pipeline.plan.sweep_values import written
from vitpipe.stages.report.charts import Axis, axis

BAR = 30
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 360, 70, 40, 50
_COLOURS = {"compute": "#2a7", "images": "#d80", "store": "#c33", "network": "#36c", "none": "#777"}
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.line{fill:none;stroke:#333;stroke-width:2}"
    ".ideal{fill:none;stroke:#999;stroke-dasharray:4 4}"
)


def sweep_lines(swept: Swept, points: Sequence[SweptPoint], letter: str = "█") -> Iterator[str]:
    """Write a line for each value: hours, images a second with a bar, what binds, GPU-hours, price.

    Memory is written where it is not the same at all of them.
    """
    known = [point for point in points if point.planned is not None]
    most = max(_rate(point) for point in known)
    width = max(len(written(point.value)) for point in points)
    with_memory = len({point.planned.estimate.memory_bytes for point in known if point.planned}) > 1
    node = known[0].planned
    yield f"{swept.path}, {node.node if node else ''}:"
    for point in points:
        value = written(point.value).rjust(width)
        if point.planned is None:
            yield f"{value}  {point.problem}"
            continue
        bar = letter * max(1, round(BAR * _rate(point) / most)) if most else ""
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


def _rate(point: SweptPoint) -> float:
    """Images a second, or where a node has none its inverse hours."""
    one = point.planned
    if one is None or not one.estimate.hours:
        return 0.0
    return one.estimate.costs.images_per_s if one.estimate.costs else 1 / one.estimate.hours


def sweep_svg(swept: Swept, points: Sequence[SweptPoint]) -> Markup:
    """Draw speed over the values, a dashed line for twice as fast by twice as much, and by colour what binds."""
    known = [point for point in points if point.planned is not None]
    x, y = _across([point.value for point in known]), axis([_rate(point) for point in known], zero=True)
    title = f"{swept.path}: images/s"
    parts = [Markup("<title>{}</title><style>{}</style>").format(title, Markup(_STYLE))]
    parts += [Markup('<text x="{}" y="20">{}</text>').format(LEFT, title)]
    for tick in y.ticks:
        level = _down(y, tick)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH, level, level))
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 8, level + 4, short(tick)))
    first = known[0]
    if first.value > 0:
        ideal = [(point.value, min(y.high, _rate(first) * point.value / first.value)) for point in known]
        parts.append(_line("ideal", [(x(value), _down(y, rate)) for value, rate in ideal]))
    parts.append(_line("line", [(x(point.value), _down(y, _rate(point))) for point in known]))
    parts += [_dot(point, x(point.value), _down(y, _rate(point))) for point in known]
    for place, (binds, colour) in enumerate(_COLOURS.items()):
        key = Markup('<circle cx="{}" cy="{}" r="5" fill="{}"/><text x="{}" y="{}">{}</text>')
        left = LEFT + 110 * place
        parts.append(key.format(left, HEIGHT - 12, colour, left + 10, HEIGHT - 8, escape(binds)))
    opening = Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img">')
    return opening.format(WIDTH + 20, HEIGHT) + Markup("").join(parts) + Markup("</svg>\n")


def _dot(point: SweptPoint, left: float, down: float) -> Markup:
    """Draw one value and write it below."""
    costs = point.planned.estimate.costs if point.planned else None
    colour, told = _COLOURS[costs.binds if costs else "none"], f"{written(point.value)}: {', '.join(_words(point))}"
    dot = Markup('<circle cx="{}" cy="{}" r="5" fill="{}"><title>{}</title></circle>').format(left, down, colour, told)
    label = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>')
    return dot + label.format(left, HEIGHT - BOTTOM + 18, written(point.value))


def _line(kind: str, places: Sequence[tuple[float, float]]) -> Markup:
    path = "M" + "L".join(f"{left:.1f} {down:.1f}" for left, down in places)
    return Markup('<path class="{}" d="{}"/>').format(kind, path)


def _down(scale: Axis, value: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.place(value) / 100), 1)


def _across(values: Sequence[float]) -> Callable[[float], float]:
    """Make a function from values to places from left to right; by logarithms where they span much."""
    is_log = min(values) > 0 and max(values) / min(values) >= 5

    def scaled(value: float) -> float:
        return math.log(value) if is_log else value

    low, span = scaled(min(values)), scaled(max(values)) - scaled(min(values))

    def place(value: float) -> float:
        share = (scaled(value) - low) / span if span else 0.5
        return round(LEFT + 20 + (WIDTH - LEFT - 40) * share, 1)

    return place
