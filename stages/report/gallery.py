"""What is drawn for the page and what came of it, as plain data. No torch."""

from dataclasses import dataclass

from vitpipe.stages.artifacts import Checkpoint, Frozen, Score, ShardSet, Weights
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.report.config import ReportConfig

Drawn = Weights | Score | Checkpoint


@dataclass(frozen=True)
class DrawTask:
    """The report's heavy task on its way to a machine."""

    weights: Drawn | None
    """What is looked into: native weights, or a checkpoint."""
    images: ShardSet | None
    """Whose images it is shown."""
    data: tuple[tuple[str, ShardSet], ...]
    """Name and data of each album."""
    config: ReportConfig
    cpus: int
    context: TaskContext


class Album(Frozen):
    """Sample images of one data set."""

    name: str
    facts: str
    photos: bool
    """Shown smoothly; small drawings are shown pixel by pixel."""
    classes: tuple[tuple[str, str], ...]
    """Class name and a strip of its training images as a data URI."""


class Filters(Frozen):
    """Figure 7, left."""

    uri: str
    number: int
    share: float
    """Of the filters' variance, held by the components shown."""


class Positions(Frozen):
    """Figure 7, centre."""

    uri: str
    grid: int
    fixed: bool
    """A table that was never trained."""
    lowest: float
    """The smallest similarity, the dark end of the colour ramp."""
    beside: float
    """Mean similarity of patches that touch along a side."""
    in_line: float | None
    """Of patches further apart in one row or column; None in a grid too small to have any."""
    elsewhere: float
    """Of all other pairs."""


class Distances(Frozen):
    """Figure 7, right."""

    px_LH: tuple[tuple[float, ...], ...]
    """Mean attention distance of each layer's heads, pixels."""
    even_px: float
    """What attention spread evenly would have."""
    num_images: int


class Rollout(Frozen):
    """Figures 6 and 14."""

    uri: str
    num_images: int
    photos: bool
    pool: str
    strongest: int
    """So many patches, a tenth of them, that hold"""
    held: float
    """this share of what comes from patches, mean over images."""
    num_patches: int


class Inspection(Frozen):
    """What was seen inside one model."""

    source: str
    """Whose weights, in words."""
    images: str = ""
    """Whose images, in words."""
    filters: Filters | None = None
    positions: Positions | None = None
    distances: Distances | None = None
    rollout: Rollout | None = None
    left_out: tuple[str, ...] = ()
    """Sentences about what has no meaning for this model."""


class Pictures(Frozen):
    """Everything drawn."""

    albums: tuple[Album, ...] = ()
    inside: Inspection | None = None
