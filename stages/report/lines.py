"""Accuracy over something that grows (labels, images, compute): a chart of several lines, and its numbers as a table.

Places are percentages of the room there is, so that text and dots keep their size on a phone. Knows no score.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from vitpipe.stages.report.charts import Axis, percent_axis, svg

MAX_SERIES = 10
"""Colours of the stylesheet; with more lines they repeat."""
WIDE = 5.0
"""The axis is logarithmic when the largest x is at least so many times the smallest."""


@dataclass(frozen=True)
class Point:
    """One measurement."""

    x: float
    y: float
    """Percent."""
    std: float | None = None


@dataclass(frozen=True)
class Series:
    """One line: points in the order of x."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Lines:
    """A chart, ready to print."""

    title: str
    about: str
    x_name: str
    svg: Markup
    y: Axis
    x_ticks: tuple[tuple[float, str], ...]
    """Each tick's place in percent and its text."""
    series: tuple[Series, ...]
    write_x: Callable[[float], str]

    @classmethod
    def draw(
        cls, title: str, about: str, x_name: str, series: Sequence[Series], write_x: Callable[[float], str]
    ) -> "Lines":
        """Draw every series that has a point; a whisker is one standard deviation."""
        shown = tuple(one for one in series if one.points)
        xs = sorted({point.x for one in shown for point in one.points})
        ends = [value for one in shown for p in one.points for value in (p.y - (p.std or 0), p.y + (p.std or 0))]
        scale = percent_axis(max(0.0, min(ends)), min(100.0, max(ends)))
        place, parts = _placed(xs), scale.grid_lines()
        parts += [_one(one, f"s{number % MAX_SERIES}", place, scale) for number, one in enumerate(shown)]
        ranges = "; ".join(f"{one.name} {one.points[0].y:.1f} to {one.points[-1].y:.1f} %" for one in shown)
        drawn = svg("lines", 'width="100%" height="260"', f"{title}: {ranges}", parts)
        return cls(title, about, x_name, drawn, scale, _ticks(xs, place, write_x), shown, write_x)

    @property
    def xs(self) -> list[float]:
        """Every x that some series has, ascending."""
        return sorted({point.x for one in self.series for point in one.points})

    def at(self, series: Series, x: float) -> str:
        """Write one cell of the table below the chart; a dash where the series has no such x."""
        found = [point for point in series.points if point.x == x]
        return ", ".join(f"{p.y:.1f}" + (f" ± {p.std:.1f}" if p.std is not None else "") for p in found) or "–"


def _one(series: Series, colour: str, place: Callable[[float], float], scale: Axis) -> str:
    parts = []
    ends = [(f"{place(point.x):.2f}%", scale.from_top(point.y)) for point in series.points]
    for (x1, y1), (x2, y2) in pairwise(ends):
        parts.append(f'<line class="path" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for point in series.points:
        x = f"{place(point.x):.2f}%"
        if point.std:
            low = scale.from_top(max(point.y - point.std, scale.low))
            high = scale.from_top(min(point.y + point.std, scale.high))
            parts.append(f'<line class="whisker" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
        parts.append(f'<circle cx="{x}" cy="{scale.from_top(point.y)}" r="4"/>')
    return f'<g class="{colour}">{"".join(parts)}</g>'


def _placed(xs: Sequence[float]) -> Callable[[float], float]:
    """A function from x to percent, with room at both ends; logarithmic where the values span much."""
    low, high = xs[0], xs[-1]
    if low == high:
        return lambda x: 50.0
    if low > 0 and high / low >= WIDE:
        return lambda x: 5 + 90 * (math.log(x) - math.log(low)) / (math.log(high) - math.log(low))
    return lambda x: 5 + 90 * (x - low) / (high - low)


def _ticks(
    xs: Sequence[float], place: Callable[[float], float], write: Callable[[float], str]
) -> tuple[tuple[float, str], ...]:
    """As many ticks as fit on a phone without touching: a letter there takes two percent."""
    kept: list[tuple[float, str]] = []
    for x in xs:
        text = write(x)
        if not kept or place(x) - kept[-1][0] >= 3 + len(text) + len(kept[-1][1]):
            kept.append((place(x), text))
    return tuple(kept)
