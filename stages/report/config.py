"""What a report takes beside the artifacts it tells of. No torch."""

from pydantic import Field, PositiveInt

from stages.settings import Settings, TaskResources


class ReportConfig(Settings):
    """One offline page; nothing is required."""

    title: str | None = Field(default=None, max_length=200)
    """Heading of the page; the run's name when left out."""
    samples: PositiveInt = 4
    """Sample images per class and data set, as far as the page's budget of images reaches."""
    max_classes: PositiveInt = 60
    """Classes of a data set that are shown as images, evenly spread over all of them."""


class ReportResources(TaskResources):
    """Where the pictures are drawn."""
