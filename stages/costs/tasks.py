"""What binds tasks of a fan-out: each computes on its cores or its part of a GPU, and makes its images on its cores."""

from dataclasses import dataclass
from typing import Literal

from vitpipe.stages.costs.reading import ImageWork


@dataclass(frozen=True)
class Tasks:
    """Many alike, as many at a time as there is room for."""

    flops: float
    """Of all of them."""
    images: float
    """Read and prepared by all of them."""
    image: ImageWork
    count: int
    at_once: float
    """That run beside each other."""
    gpus_each: float
    cores_each: float
    """That make its images."""
    cores_asked: float
    """Of the queue."""
    speed: float
    """FLOP/s of one task."""
    start_s: float = 0.0
    """Of each, until it begins with its first step."""
    launches_s: float = 0.0
    """In which the hosts of all of them ask their GPUs for work."""

    @property
    def compute_s(self) -> float:
        """Seconds of the model alone, all tasks one after the other: no less than it takes to ask a GPU for it."""
        return max(self.flops / self.speed, self.launches_s)

    @property
    def images_s(self) -> float:
        """Seconds of images alone."""
        return self.images * self.image.milliseconds() / 1000 / max(1.0, self.cores_each)

    @property
    def binds(self) -> Literal["compute", "images", "start"]:
        """What takes longest of all tasks together."""
        if self.count * self.start_s > max(self.images_s, self.compute_s):
            return "start"
        return "images" if self.images_s > self.compute_s else "compute"

    @property
    def seconds(self) -> float:
        """Until all have ended; on cores images and model share them."""
        work = max(self.compute_s, self.images_s) if self.gpus_each else self.compute_s + self.images_s
        return (work + self.count * self.start_s) / self.at_once
