"""What is drawn for the page and what came of it, as plain data. No torch."""

from dataclasses import dataclass

from stages.artifacts import Frozen, Score, ShardSet, Weights
from stages.contract import TaskContext


@dataclass(frozen=True)
class DrawTask:
    """The report's heavy task on its way to a machine."""

    weights: Weights | Score | None
    data: tuple[tuple[str, ShardSet], ...]
    """Name and data of each album."""
    samples: int
    max_classes: int
    context: TaskContext


class Album(Frozen):
    """Sample images of one data set."""

    name: str
    facts: str
    photos: bool
    """Shown smoothly; small drawings are shown pixel by pixel."""
    classes: tuple[tuple[str, str], ...]
    """Class name and a strip of its training images as a data URI."""


class Pictures(Frozen):
    """Everything drawn; data URIs, None for what there was nothing to draw from."""

    albums: tuple[Album, ...] = ()
    filters: str | None = None
    num_filters: int = 0
    positions: str | None = None
    grid: int = 0
    lowest: float = 0.0
    """The smallest similarity, the dark end of the colour ramp."""
