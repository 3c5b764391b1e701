"""Charts as small inline SVG whose colours come from the page's stylesheet, so that they follow dark mode and print.

Horizontal places are percentages of the width there is; text stays HTML, so that it keeps its size on a phone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from vitpipe.stages.report.certainty import whisker
from vitpipe.stages.report.results import ScoreRow

PLOT_WIDTH, PLOT_HEIGHT = 1000, 200
MAX_POINTS = 400
MAX_ROWS = 12
"""Rows of the table below a curve."""
FAR_POINTS = 15.0
"""Scores further apart than this are drawn as bars from 0; closer ones without bars, on a scale around them."""


@dataclass(frozen=True)
class Axis:
    """A linear scale with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """0 at the low end, 100 at the high one."""
        return 100 * (value - self.low) / (self.high - self.low)

    def from_top(self, value: float) -> str:
        """Where a value lies on a vertical axis, in percent from the top, as SVG and CSS want it."""
        return f"{100 - self.place(value):.2f}%"

    def grid_lines(self) -> list[str]:
        """One horizontal line a tick, as SVG."""
        places = (self.from_top(tick) for tick in self.ticks)
        return [f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>' for y in places]


def svg(classes: str, sizes: str, label: str, parts: Iterable[str]) -> Markup:
    """Put drawn parts into one picture; `sizes` are attributes, `label` is what is read to whoever does not see it."""
    opening = Markup('<svg class="{}" role="img" {} aria-label="{}">').format(classes, Markup(sizes), label)
    return opening + Markup("".join(parts) + "</svg>")


def axis(values: Sequence[float], num_ticks: int = 5, *, zero: bool = False) -> Axis:
    """Make a scale whose ends are round and enclose all values, and 0 with `zero`."""
    low, high = min(values), max(values)
    low = min(low, 0.0) if zero else low
    step = _round_step((high - low) / num_ticks or abs(high) / num_ticks or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:  # one value: it stands at the top, unless it is 0 or less
        first, last = (first - 1, last) if first > 0 else (first, first + 1)
    return Axis(first * step, last * step, tuple(round(place * step, 12) for place in range(first, last + 1)))


def percent_axis(low: float, high: float) -> Axis:
    """Make a scale that encloses `low` and `high` and stays within 0 and 100."""
    scale = axis([low, high])
    return Axis(max(0.0, scale.low), min(100.0, scale.high), tuple(tick for tick in scale.ticks if 0 <= tick <= 100))


def score_axis(rows: Sequence[ScoreRow]) -> Axis:
    """Make the scale of one benchmark's scores, percent: from 0 for one of one seed and when they lie far apart, else
    where they differ."""
    values = [100 * value for row in rows for value in (*(whisker(row) or ()), row.value, *row.per_seed)]
    alone = len(rows) == 1 and len(rows[0].per_seed) == 1
    far = alone or max(values) - min(values) > FAR_POINTS or min(values) < FAR_POINTS
    low, high = (0.0, min(100.0, max(values) + 5)) if far else (min(values) - 0.5, min(100.0, max(values) + 0.5))
    return percent_axis(low, high)


def dots(row: ScoreRow, scale: Axis, levels: Sequence[float] = ()) -> Markup:
    """Draw one score: a bar to the mean, a whisker of one standard deviation, a dot for each seed.

    Of a single seed the whisker is the 95 % interval. `levels` are dashed, where the scale has them.
    """
    mean = scale.place(100 * row.value)
    ticks = (f"{scale.place(tick):.2f}%" for tick in scale.ticks)
    parts = [f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="100%"/>' for x in ticks]
    if scale.low == 0:
        parts.append(f'<rect class="bar" x="0" width="{mean:.2f}%" y="8" height="18" rx="3"/>')
    dashed = (f"{scale.place(100 * level):.2f}%" for level in levels if 100 * level >= scale.low)
    parts += [f'<line class="level" x1="{x}" x2="{x}" y1="0" y2="100%"/>' for x in dashed]
    if ends := whisker(row):
        low, high = (scale.place(min(max(100 * end, scale.low), scale.high)) for end in ends)
        parts.append(f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="17" y2="17"/>')
        parts += [f'<line class="whisker" x1="{x:.2f}%" x2="{x:.2f}%" y1="12" y2="22"/>' for x in (low, high)]
    for value in row.per_seed if len(row.per_seed) > 1 else ():
        parts.append(f'<circle class="seed" cx="{scale.place(100 * value):.2f}%" cy="17" r="3.5"/>')
    parts.append(f'<line class="mean" x1="{mean:.2f}%" x2="{mean:.2f}%" y1="5" y2="29"/>')
    seeds = f"; seeds {', '.join(f'{100 * value:.1f} %' for value in row.per_seed)}" if len(row.per_seed) > 1 else ""
    described = f"{row.arm}: {row.text}{seeds}"
    return svg(f"dots {row.kind}", 'width="100%" height="34"', described, parts)


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of a training."""

    title: str
    unit: str
    svg: Markup
    x: Axis
    y: Axis
    first: float
    last: float
    smallest: float
    numbers: tuple[tuple[float, float], ...]
    """The table below it: evenly spaced steps and their values, the last step among them."""

    @classmethod
    def draw(
        cls, title: str, unit: str, steps: Sequence[int], values: Sequence[float], smooth: bool, zero: bool = True
    ) -> "Curve":
        """Draw finite values; with `smooth` every step faintly and a running mean on top; with `zero` from 0 on."""
        points = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
        x = axis([points[0][0], points[-1][0]], 4)
        y = axis([value for _, value in points], 4, zero=zero)
        x = Axis(float(points[0][0]), float(max(points[-1][0], points[0][0] + 1)), x.ticks)
        places = (f"{_y(y, tick):.1f}" for tick in y.ticks)
        lines = [f'<line class="grid" x1="0" x2="{PLOT_WIDTH}" y1="{y1}" y2="{y1}"/>' for y1 in places]
        thinned = _thin(points)
        lines.append(f'<path class="{"raw" if smooth else "line"}" d="{_path(thinned, x, y)}"/>')
        if smooth:
            lines.append(f'<path class="line" d="{_path(_thin(_running_mean(points)), x, y)}"/>')
        label = f"{title} from {points[0][1]:.4g} to {points[-1][1]:.4g} over {len(points)} steps"
        drawn = svg("curve", f'viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" preserveAspectRatio="none"', label, lines)
        smallest = min(value for _, value in points)
        return cls(title, unit, drawn, x, y, points[0][1], points[-1][1], smallest, _rows(points))


def trace(points: Sequence[tuple[float, float]], x: Axis, y: Axis, smooth: bool) -> str:
    """Trace points as the `d` of an SVG path in a plot of these scales, few enough to draw; `smooth` by their mean."""
    return _path(_thin(_running_mean(points) if smooth else points), x, y)


def _rows(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    last = len(points) - 1
    places = sorted({round(last * number / max(1, MAX_ROWS - 1)) for number in range(MAX_ROWS)})
    return tuple(points[place] for place in places)


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    places = [f"{x.place(step) * PLOT_WIDTH / 100:.1f} {_y(y, value):.1f}" for step, value in points]
    return "M" + "L".join(places)


def _y(scale: Axis, value: float) -> float:
    return PLOT_HEIGHT * (1 - scale.place(value) / 100)


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS, keeping the lowest and highest of every group of neighbours."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = math.ceil(2 * len(points) / MAX_POINTS)
    kept = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        ends = {min(group, key=lambda point: point[1]), max(group, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean over a fortieth of the run, centred on each step and narrower towards the ends, so that it never lags."""
    half, sums = max(1, len(points) // 80), [0.0, *accumulate(value for _, value in points)]
    smooth = []
    for place, (step, _) in enumerate(points):
        reach = min(half, place, len(points) - 1 - place)
        smooth.append((step, (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1)))
    return smooth


def _round_step(step: float) -> float:
    size: float = 10.0 ** math.floor(math.log10(step))
    return next(size * digit for digit in (1, 2, 2.5, 5, 10) if step <= size * digit * (1 + 1e-9))
