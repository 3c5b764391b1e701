"""Where a classifier is wrong, what it confuses, how well it is calibrated, and how fast; from `score.json` alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.stages.artifacts import Score
from vitpipe.stages.paper.tables import title

MAX_MATRIX = 20
"""With more classes than this, the page has the worst confusions and no matrix."""
WORST = 12


@dataclass(frozen=True)
class Mistakes:
    """One head on one benchmark."""

    node: str
    benchmark: str
    top5: float
    mean_per_class: float
    calibration_error: float
    classes: tuple[tuple[str, float], ...]
    """Name and accuracy, the worst first."""
    matrix: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    """A row for each true class: how many images were given each name, and their share; empty for many classes."""
    confused: tuple[tuple[str, str, int], ...]
    """True class, given name, images: the most frequent first."""


@dataclass(frozen=True)
class Speed:
    """The speed of inference, measured while features were computed."""

    weights: str
    image_px: int | None
    images_per_second: float
    """The fastest of the nodes that measured it: the others had to share the machine."""


def mistakes(scores: Sequence[Score], nodes: Mapping[str, str]) -> list[Mistakes]:
    """Read every score that the weights' own head made on single labels; `nodes` names them by URI."""
    found = []
    for score in scores:
        if score.protocol.get("method") == "classify" and score.has("score.json"):
            content = score.read_json("score.json")
            if "per_class" in content and "classes" in content:
                found.append(_read(nodes.get(score.uri, score.uri), score, content))
    return found


def speeds(scores: Sequence[Score], nodes: Mapping[str, str]) -> list[Speed]:
    """List one speed for each set of weights and image size whose features were computed."""
    found: dict[tuple[str, int | None], float] = {}
    for score in scores:
        measured, protocol = score.metrics.get("inference_images_per_second"), score.protocol
        if measured is not None and protocol.get("features") != "raw_pixels":
            uri = str(protocol.get("weights"))
            key = nodes.get(uri, uri), protocol.get("image_px")
            found[key] = max(measured, found.get(key, 0.0))
    return [Speed(weights, image_px, fastest) for (weights, image_px), fastest in found.items()]


def _read(node: str, score: Score, content: dict[str, Any]) -> Mistakes:
    names, by_class = content["classes"], content["per_class"]
    present = [number for number, value in enumerate(by_class) if value is not None]
    counts = content.get("confusion")
    rows = [] if counts is None else [(true, counts[true]) for true in present]
    cells = ((true, given, count) for true, row in rows for given, count in enumerate(row))
    confused = [(names[true], names[given], count) for true, given, count in cells if true != given and count]
    small = len(present) <= MAX_MATRIX and len(names) <= MAX_MATRIX
    matrix = [(names[true], tuple((count, count / max(1, sum(row))) for count in row)) for true, row in rows if small]
    return Mistakes(
        node=node,
        benchmark=title(score.benchmark),
        top5=content["top5"],
        mean_per_class=content["mean_per_class"],
        calibration_error=content["calibration_error"],
        classes=tuple(sorted(((names[n], by_class[n]) for n in present), key=lambda one: one[1])),
        matrix=tuple(matrix),
        confused=tuple(sorted(confused, key=lambda one: -one[2])[:WORST]),
    )
