"""What binds tasks of a fan-out: each computes on its cores or its part of a GPU, and makes its images on its cores."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vitpipe.stages.costs.reading import ImageWork
from vitpipe.stages.settings import Settings


class WorkPhase(Settings):
    """Tasks of a node that go to the queue together, or its ranks."""

    tasks: int
    seconds: float
    """Of each."""
    cpus: float = 1.0
    gpus: float = 0.0
    ranks: int = 0
    """Above 0 it is one gang of so many, each of which asks for the cores and GPUs."""

    @property
    def held_seconds(self) -> float:
        """Seconds of all its tasks, or of its ranks, added up: as long as they hold what they ask for."""
        return self.tasks * max(1, self.ranks) * self.seconds


def in_turn(phases: Iterable[WorkPhase], at_once: int) -> float:
    """Seconds of phases one after the other, each in waves of so many tasks at once, alone on the machines."""
    return sum(math.ceil(phase.tasks / max(1, at_once)) * phase.seconds for phase in phases)


@dataclass(frozen=True)
class Tasks:
    """Many alike, as many at a time as there is room for."""

    flops: float
    """Of all of them."""
    images: float
    """Read and prepared by all of them."""
    image: ImageWork
    shares: tuple[tuple[int, float], ...]
    """Each phase's number of tasks, and its part of all the work; a phase begins when the one before has ended."""
    room: int
    """How many the machines hold at once."""
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
    def count(self) -> int:
        """Tasks of all phases."""
        return sum(count for count, _ in self.shares)

    @property
    def at_once(self) -> int:
        """That run beside each other in the largest phase."""
        return max(1, min(self.room, max(count for count, _ in self.shares)))

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
    def phases(self) -> tuple[WorkPhase, ...]:
        """What the queue is asked for; on cores images and model share them."""
        work = max(self.compute_s, self.images_s) if self.gpus_each else self.compute_s + self.images_s
        return self._phases(work)

    @property
    def seconds(self) -> float:
        """Until all have ended, alone on the machines."""
        return in_turn(self.phases, self.room)

    @property
    def compute_seconds(self) -> float:
        """The same if the model alone took time."""
        return in_turn(self._phases(self.compute_s), self.room)

    def _phases(self, work: float) -> tuple[WorkPhase, ...]:
        """Each task's seconds of so many of all of them."""
        return tuple(
            WorkPhase(
                tasks=count,
                seconds=self.start_s + work * share / count,
                cpus=self.cores_asked,
                gpus=self.gpus_each,
            )
            for count, share in self.shares
            if count
        )
