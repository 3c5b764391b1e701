"""A sweep as a drawing for a paper: how fast a node is at each value, and what binds it. Knows no terminal."""

import io
import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from vitpipe.pipeline.cli.display import short
from vitpipe.pipeline.cli.sweep_chart import rate
from vitpipe.pipeline.plan.sweep import Swept, SweptPoint
from vitpipe.pipeline.plan.sweep_values import written

WIDE = 5.0
"""Values that span so many times their least are drawn by logarithms."""
LABEL_GAP_PX = 6.0
LOOKS = {
    "compute": ("#009e73", "o"),
    "images": ("#e69f00", "s"),
    "store": ("#d55e00", "^"),
    "network": ("#0072b2", "D"),
    "launches": ("#cc79a7", "*"),
    "start": ("#56b4e9", "P"),
    "none": ("#777777", "v"),
}
"""Colour and shape of what binds: told apart in grey, too (colours of Okabe and Ito)."""
_GREY = "#888888"


def sweep_svg(swept: Swept, points: Sequence[SweptPoint]) -> str:
    """Draw speed over the values, by colour and shape what binds, and what cannot be planned.

    A dashed line is speed in proportion, where the swept field is what the GPUs or cores are counted by.
    """
    known = sorted((point for point in points if point.planned is not None), key=lambda point: point.value)
    with matplotlib.rc_context({"svg.hashsalt": "sweep", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        _scales(axes, [point.value for point in points], known)
        _draw(axes, known, [point.value for point in points if point.planned is None])
        _name(axes, swept, known)
        _label_values(figure, axes, sorted(point.value for point in points))
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Title": f"{swept.path}: speed"})
    return drawn.getvalue()


def _scales(axes: Axes, values: Sequence[float], known: Sequence[SweptPoint]) -> None:
    """Take logarithms where values, and then speeds too, span much; else speeds begin at 0."""
    speeds = [_level(point, known) for point in known]
    if _spans(values):
        axes.set_xscale("log")
        if _spans(speeds):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_minor_locator(NullLocator())
            return
    axes.set_ylim(bottom=0, top=1.08 * max(speeds + _ideal(known)))


def _spans(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= WIDE


def _draw(axes: Axes, known: Sequence[SweptPoint], missing: Sequence[float]) -> None:
    """Draw the line, the ideal one, a mark of each value, and the legend of what is there."""
    places = [(point.value, _level(point, known)) for point in known]
    axes.plot(*zip(*places, strict=True), color="#333333", linewidth=1.2, zorder=2)
    if ideal := _ideal(known):
        axes.plot([point.value for point in known], ideal, "--", color=_GREY, linewidth=1.2, zorder=1)
    for point, (value, level) in zip(known, places, strict=True):
        colour, shape = LOOKS[_binds(point)]
        face = "white" if point.also else colour
        axes.plot(value, level, shape, color=colour, markerfacecolor=face, markersize=6, zorder=3)
    if missing:
        bottom = axes.get_xaxis_transform()
        axes.plot(missing, [0.02] * len(missing), "x", color="#b00020", transform=bottom, clip_on=False, zorder=4)
    axes.legend(handles=_legend(known, missing), frameon=False)


def _legend(known: Sequence[SweptPoint], missing: Sequence[float]) -> list[Line2D]:
    used = {_binds(point) for point in known}
    found = [
        Line2D(
            [], [], linestyle="", marker=shape, color=colour, label=f"bound by {name}" if name != "none" else "planned"
        )
        for name, (colour, shape) in LOOKS.items()
        if name in used
    ]
    if any(point.also for point in known):
        fields = sorted({point.also.partition(" ")[0] for point in known if point.also})
        words = f"open: with a smaller {' and '.join(fields)}"
        found.append(Line2D([], [], linestyle="", marker="o", color=_GREY, markerfacecolor="white", label=words))
    if _ideal(known):
        found.append(Line2D([], [], linestyle="--", color=_GREY, label="in proportion"))
    if missing:
        found.append(Line2D([], [], linestyle="", marker="x", color="#b00020", label="cannot be planned"))
    return found


def _name(axes: Axes, swept: Swept, known: Sequence[SweptPoint]) -> None:
    """Name both axes: the field, and what of which node."""
    node = swept.node or ""
    field = swept.path.removeprefix(f"nodes.{node}.")
    unit = f", {swept.unit}" if swept.unit else ""
    axes.set_xlabel(f"{field} of {node}{unit}" if node else field, parse_math=False)
    nodes = dict.fromkeys(point.planned.node for point in known if point.planned)
    measure = "images/s" if _is_of_images(known) else "hours"
    axes.set_ylabel(f"{measure} of {', '.join(nodes)}", parse_math=False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: short(level)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _label_values(figure: Figure, axes: Axes, values: Sequence[float]) -> None:
    """Give each value a tick, and those a label that have room for one: the least and the largest first."""
    axes.set_xticks(values, [_short_value(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    figure.draw_without_rendering()
    labels = axes.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    kept = list[tuple[float, float]]()
    for place in sorted(range(len(labels)), key=lambda place: (place not in (0, len(labels) - 1), place)):
        left, right = boxes[place].x0 - LABEL_GAP_PX, boxes[place].x1 + LABEL_GAP_PX
        if any(left < end and begin < right for begin, end in kept):
            labels[place].set_visible(False)
        else:
            kept.append((boxes[place].x0, boxes[place].x1))


def _short_value(value: float) -> str:
    """Write a whole number as it is, of others three digits; in at most seven signs where that can be."""
    text = written(value)
    brief = text if len(text) <= (7 if value.is_integer() else 5) else written(float(f"{value:.3g}"))
    return brief if len(brief) <= 7 else f"{value:.3g}"


def _is_of_images(known: Sequence[SweptPoint]) -> bool:
    """Whether speed is what differs; hours alone do where checkpoints or the length are swept."""
    hours = {point.planned.estimate.hours for point in known if point.planned}
    if any(point.planned is None or point.planned.estimate.costs is None for point in known):
        return False
    return len({rate(point) for point in known}) > 1 or len(hours) == 1


def _level(point: SweptPoint, known: Sequence[SweptPoint]) -> float:
    """Images a second, or hours."""
    hours = point.planned.estimate.hours if point.planned else None
    return rate(point) if _is_of_images(known) else hours or 0.0


def _binds(point: SweptPoint) -> str:
    costs = point.planned.estimate.costs if point.planned else None
    return costs.binds if costs else "none"


def _ideal(known: Sequence[SweptPoint]) -> list[float]:
    """Speeds in proportion to the values, where GPUs, or cores where there are none, are so too; else nothing."""
    held, first = [_held(point) for point in known], known[0]
    if len(known) < 2 or first.value <= 0 or not all(held):
        return []
    ratios = [point.value / first.value for point in known]
    is_counted = all(math.isclose(many, held[0] * ratio) for many, ratio in zip(held, ratios, strict=True))
    return [rate(first) * ratio for ratio in ratios] if is_counted else []


def _held(point: SweptPoint) -> float:
    costs = point.planned.estimate.costs if point.planned else None
    return (costs.gpus or costs.workers * costs.cores_per_worker) if costs else 0.0
