"""One offline page of several runs: their table, their scores in one chart, their training curves in one another.

Knows artifacts and facts that are handed in; finds no run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vitpipe.stages.report.charts import PLOT_HEIGHT, PLOT_WIDTH, Axis, axis, score_axis, svg, trace
from vitpipe.stages.report.lines import MAX_SERIES
from vitpipe.stages.report.page import environment
from vitpipe.stages.report.pretraining import CURVES, measured_title
from vitpipe.stages.report.results import ScoreRow
from vitpipe.stages.training.measure.metrics_log import measured

Point = tuple[float, float]
Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Overlay:
    """One quantity over the steps of several trainings, ready to print."""

    title: str
    unit: str
    svg: Markup
    x: Axis
    y: Axis
    series: tuple[tuple[str, str, float, float, float], ...]
    """Run, colour class, number of the last step, value there, smallest value."""

    @classmethod
    def draw(
        cls, title: str, unit: str, lines: Sequence[tuple[str, int, Sequence[Point]]], smooth: bool, zero: bool
    ) -> "Overlay":
        """Draw each run's finite points, in the colour of the run's place; with `smooth` a running mean of them."""
        every = [point for _, _, points in lines for point in points]
        first, last = min(step for step, _ in every), max(step for step, _ in every)
        x = Axis(first, max(last, first + 1), axis([first, last], 4).ticks)
        y = axis([value for _, value in every], 4, zero=zero)
        places = (f"{PLOT_HEIGHT * (1 - y.place(tick) / 100):.1f}" for tick in y.ticks)
        parts = [f'<line class="grid" x1="0" x2="{PLOT_WIDTH}" y1="{at}" y2="{at}"/>' for at in places]
        series = []
        for name, place, points in lines:
            colour = f"s{place % MAX_SERIES}"
            parts.append(f'<g class="{colour}"><path d="{trace(points, x, y, smooth)}"/></g>')
            step, value = points[-1]
            series.append((name, colour, step, value, min(value for _, value in points)))
        label = f"{title}: " + "; ".join(f"{name} ends at {value:.4g}" for name, _, _, value, _ in series)
        drawn = svg(
            "curve overlay", f'viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" preserveAspectRatio="none"', label, parts
        )
        return cls(title, unit, drawn, x, y, tuple(series))


def render(**facts: Any) -> str:
    """Fill `several_runs.html.j2` with `facts`, its variables. A missing one is an error, not a gap."""
    return environment().get_template("several_runs.html.j2").render(**facts)


def score_chart(node: str, table: Sequence[ScoreRow]) -> dict[str, Any]:
    """Put one node's scores of several runs on one scale."""
    return {"title": node, "benchmark": table[0].benchmark, "rows": table, "axis": score_axis(table)}


def overlaid(trainings: Iterable[tuple[str, str, Log, Log]]) -> list[tuple[str, list[Overlay]]]:
    """Draw node by node what the trainings of several runs logged: (node, run, steps' lines, evaluations' lines)."""
    logs = list(trainings)
    colours = {run: place for place, run in enumerate(dict.fromkeys(run for _, run, _, _ in logs))}
    found = []
    for node in dict.fromkeys(node for node, _, _, _ in logs):
        here = [(run, steps, evaluations) for one, run, steps, evaluations in logs if one == node]
        drawn = []
        for field, title, noisy in CURVES:
            drawn += _overlay(title, "", [(run, colours[run], _points(steps, field)) for run, steps, _ in here], noisy)
        told = [(run, [{"step": line["step"]} | measured(dict(line)) for line in lines]) for run, _, lines in here]
        for name in dict.fromkeys(name for _, rows in told for row in rows for name in row if name != "step"):
            scale, unit = (1.0, "") if name == "validation/loss" else (100.0, "%")
            lines = [(run, colours[run], _points(rows, name, scale)) for run, rows in told]
            drawn += _overlay(measured_title(name), unit, lines, smooth=False)
        if drawn:
            found.append((node, drawn))
    return found


def _overlay(title: str, unit: str, lines: Sequence[tuple[str, int, list[Point]]], smooth: bool) -> list[Overlay]:
    shown = [line for line in lines if len(line[2]) > 1]
    return [Overlay.draw(title, unit, shown, smooth, zero=title == "Learning rate")] if shown else []


def _points(lines: Log, field: str, scale: float = 1.0) -> list[Point]:
    found = [(float(line["step"]), scale * line[field]) for line in lines if line.get(field) is not None]
    return [point for point in found if math.isfinite(point[1])]
