"""Captions for the pictures of a model's inside, and the chart of attention distance by depth. No torch.

A caption states what was measured, and what the paper saw in the same place.
"""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vitpipe.stages.report.charts import Axis, axis, svg
from vitpipe.stages.report.gallery import Distances, Filters, Inspection, Positions, Rollout

_READER = {
    "cls": "the class token",
    "gap": "the mean of all tokens, which the head sees",
    "map": "the attention pooling, which the head sees",
}


@dataclass(frozen=True)
class Depth:
    """Attention distance of every head, layer by layer (Figure 7, right)."""

    svg: Markup
    y: Axis
    layers: tuple[tuple[int, float], ...]
    """Layer numbers written below the chart, each with its place in percent."""


def captions(inside: Inspection) -> dict[str, Any]:
    """Write a caption for each picture there is, by its name; and the chart as `depth`."""
    found: dict[str, Any] = {"depth": None}
    if inside.filters:
        found["filters"] = filter_words(inside.filters)
    if inside.positions:
        found["positions"] = position_words(inside.positions)
    if inside.distances:
        found |= {"distances": distance_words(inside.distances), "depth": depth_chart(inside.distances)}
    if inside.rollout:
        found["rollout"] = rollout_words(inside.rollout)
    return found


def filter_words(filters: Filters) -> str:
    """How much of the filters' variance the picture shows."""
    return (
        f"They hold {100 * filters.share:.0f} % of the variance of all filters. A trained model’s resemble plausible "
        "basis functions of the fine structure within a patch; an untrained one’s are noise."
    )


def position_words(positions: Positions) -> str:
    """How alike the position embeddings of near and of far patches are."""
    kind = "The sine table was never trained. " if positions.fixed else ""
    line = "" if positions.in_line is None else f", further apart in one row or column {_number(positions.in_line)}"
    return (
        f"{kind}Mean similarity: side by side {_number(positions.beside)}{line}, elsewhere "
        f"{_number(positions.elsewhere)}. Where a model learned the image’s two dimensions, near patches are more "
        "alike, and rows and columns show."
    )


def distance_words(distances: Distances) -> str:
    """How far the heads of the first and the last layer attend, and how far even attention would."""
    (first_low, first_high), (last_low, last_high) = (
        (_px(min(heads)), _px(max(heads))) for heads in (distances.px_LH[0], distances.px_LH[-1])
    )
    return (
        f"One dot is one head: how far from a patch, in pixels, lies what it attends to, weighted by attention, mean "
        f"over {distances.num_images:,} images. In the first layer heads reach from {first_low} to {first_high}, in "
        f"the last from {last_low} to {last_high}; attention spread evenly would reach {_px(distances.even_px)} "
        "(dashed). The paper saw some heads attend to most of the image already in the lowest layers, and distances "
        "grow with depth."
    )


def rollout_words(rollout: Rollout) -> str:
    """How much of what the head sees comes from few patches."""
    even = rollout.strongest / rollout.num_patches
    return (
        f"Beside each image the same image, as bright as attention from there, rolled through all layers, reaches "
        f"{_READER[rollout.pool]}. The strongest {rollout.strongest} of {rollout.num_patches} patches hold "
        f"{100 * rollout.held:.0f} % of it on average; spread evenly they would hold {100 * even:.0f} %."
    )


def depth_chart(distances: Distances) -> Depth:
    """Draw one column a layer, one dot a head, the even distance dashed."""
    layers = distances.px_LH
    y = axis([distances.even_px, *(px for heads in layers for px in heads)], 4, zero=True)
    places = [100 * (layer + 0.5) / len(layers) for layer in range(len(layers))]
    lines, even = y.grid_lines(), y.from_top(distances.even_px)
    lines.append(f'<line class="even" x1="0" x2="100%" y1="{even}" y2="{even}"/>')
    for place, heads in zip(places, layers, strict=True):
        lines += [f'<circle class="head" cx="{place:.2f}%" cy="{y.from_top(px)}" r="4.5"/>' for px in sorted(heads)]
    label = f"Mean attention distance of {len(layers[0])} heads in each of {len(layers)} layers"
    step = -(-len(layers) // 16)
    written = tuple((layer + 1, places[layer]) for layer in range(0, len(layers), step))
    return Depth(svg("depth", 'width="100%" height="240"', label, lines), y, written)


def _px(value: float) -> str:
    return f"{value:.1f}\N{NO-BREAK SPACE}px"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
