"""The task that draws the page's pictures, and the pictures with their numbers, as plain data. No torch."""

from dataclasses import dataclass

from vitpipe.stages.artifacts import Checkpoint, Frozen, Score, ShardSet, Weights
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.report.config import ReportConfig

Drawn = Weights | Score | Checkpoint


@dataclass(frozen=True)
class DrawTask:
    """The report's heavy task on its way to a machine."""

    weights: Drawn | None
    """The model to look into: native weights, or a checkpoint."""
    images: ShardSet | None
    """Images that are passed through it."""
    data: tuple[tuple[str, ShardSet], ...]
    """Name and data of each album."""
    wrong: "tuple[WrongTask, ...]"
    config: ReportConfig
    cpus: int
    context: TaskContext


class WrongImage(Frozen):
    """One image under a wrong name."""

    uri: str
    """The picture as a data URI."""
    actual: str
    given: str
    confidence: float


class WrongImages(Frozen):
    """The surest mistakes of one score."""

    node: str
    benchmark: str
    photos: bool
    images: tuple[WrongImage, ...]


@dataclass(frozen=True)
class WrongTask:
    """The mistakes of one score, to be drawn."""

    node: str
    benchmark: str
    data: ShardSet
    split: str
    named: tuple[tuple[int, str, str, float], ...]
    """Number of the image in the split, true name, given name, confidence."""


class Album(Frozen):
    """Sample images of one data set."""

    name: str
    facts: str
    photos: bool
    """Whether the page scales them smoothly; small drawings are scaled pixel by pixel."""
    classes: tuple[tuple[str, str], ...]
    """Class name and a strip of its training images as a data URI."""


class Filters(Frozen):
    """Principal components of the patch embedding (Figure 7, left)."""

    uri: str
    number: int
    share: float
    """Share of the filters' variance that the components shown hold."""


class Positions(Frozen):
    """Similarity of the position embeddings (Figure 7, centre)."""

    uri: str
    grid: int
    fixed: bool
    """Whether the table is computed and was never trained."""
    lowest: float
    """The smallest similarity, the dark end of the colour ramp."""
    beside: float
    """Mean similarity of patches that touch along a side."""
    in_line: float | None
    """Mean of patches further apart in one row or column; None in a grid too small to have any."""
    elsewhere: float
    """Mean of all other pairs."""


class Distances(Frozen):
    """Mean attention distance by layer and head (Figure 7, right)."""

    px_LH: tuple[tuple[float, ...], ...]
    """Mean attention distance of each layer's heads, pixels."""
    even_px: float
    """The distance that evenly spread attention would have."""
    num_images: int


class Rollout(Frozen):
    """Attention rollout on images (Figures 6 and 14)."""

    uri: str
    num_images: int
    photos: bool
    pool: str
    strongest: int
    """Number of the strongest patches, a tenth of all."""
    held: float
    """Share of what comes from patches that these hold, mean over images."""
    num_patches: int


class Inspection(Frozen):
    """What was seen inside one model."""

    source: str
    """Where the weights are from, in words."""
    images: str = ""
    """Where the images are from, in words."""
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
    wrong: tuple[WrongImages, ...] = ()
