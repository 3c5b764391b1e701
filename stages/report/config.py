"""Settings of a report. No torch."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from vitpipe.stages.bounds import Few, FewOrNone, Step
from vitpipe.stages.settings import Settings, TaskResources


class ReportConfig(Settings):
    """One offline page; nothing is required."""

    title: str | None = Field(default=None, max_length=200)
    """Heading of the page; the run's name when left out."""
    samples: Few = 4
    """Sample images per class and data set, as far as the page's budget of images reaches."""
    max_classes: Few = 60
    """Classes of a data set that are shown as images, evenly spread over all classes."""
    step: Step | None = None
    """Look into this step of `checkpoint`, its last or one that was kept. Left out: into `weights`, else the newest
    converted ones upstream of the scores, else the checkpoint's last step."""
    attention_images: FewOrNone = 128
    """Images over which the distance of attention is averaged (appendix D.7), from the split `test` of `shards`, else
    `val`, else `train`; 0 leaves attention out."""
    rollout_images: FewOrNone = 8
    """How many of these are shown with their attention rollout (Figures 6 and 14)."""
    rollout: Literal["residual", "plain"] = "residual"
    """residual: half of each layer goes to its residual connection, as Abnar and Zuidema (2020) define rollout; plain:
    the heads' mean weights multiplied as they are, as appendix D.8 puts it."""


class ReportResources(TaskResources):
    """Where the pictures are drawn."""


def check_inputs(config: ReportConfig, given: Collection[str]) -> list[str]:
    """List what the config needs and the node's inputs, given by name, do not have; `validate` calls it."""
    if config.step is not None and "checkpoint" not in given:
        return [f"step {config.step} is looked for in a checkpoint, and none is given"]
    return []
