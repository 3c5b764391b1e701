"""A pipeline on many machines over weeks: images, a training, trials, what goes wrong meanwhile, and what is useful.

Led by the queue and the failure policies of the run on a simulated clock, seeded. Knows neither Ray nor any stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vitpipe.infra.chains import longest_chains
from vitpipe.infra.errors import StageError
from vitpipe.infra.ray.one_queue import OneQueue, Sizes
from vitpipe.infra.simulation.agenda import Agenda
from vitpipe.infra.simulation.cluster import DAY_S, Hazards, SimulatedCluster
from vitpipe.infra.simulation.tasks import SimulatedTasks
from vitpipe.infra.simulation.training import SimulatedTraining
from vitpipe.infra.simulation.training_model import TrainingModel

HOPELESS = 100
"""A run that takes so many times what its steps and tasks take, and a month, never comes to its end."""


@dataclass(frozen=True)
class Trip:
    """What is simulated."""

    machines: Mapping[str, Sizes]
    """Those that are rented, spare ones included."""
    training: TrainingModel
    hazards: Hazards = field(default_factory=Hazards)
    before: tuple[float, ...] = ()
    """Seconds of the tasks that the training waits for."""
    after: tuple[float, ...] = ()
    """Of those that wait for the training."""
    bundle: Sizes = field(default_factory=lambda: {"CPU": 1.0})
    """What each of these tasks asks for."""


@dataclass(frozen=True)
class Arrival:
    """How a simulated run went."""

    seconds: float
    """Of all of it."""
    training_s: float
    """From the training's coming to its last commit."""
    ideal_s: float
    """Of the training's steps alone, with the most ranks and nothing amiss."""
    spent: Mapping[str, float]
    """Seconds of the training by what they went to: `again` is for steps that were lost, the others are phases."""
    starts: int
    commands: int
    """How often a person had to run it."""
    steps_lost: int
    happened: Mapping[str, int]
    """What befell machines, by kind."""

    @property
    def goodput(self) -> float:
        """The share of the training's time that its steps alone would take."""
        return self.ideal_s / self.training_s


class _QueueLook:
    """Has the queue look again whenever machines have come or gone, before whoever runs there acts."""

    def __init__(self, queue: OneQueue) -> None:
        self._queue = queue

    def hit(self, machine: str, what: Literal["crash", "hang"]) -> None:
        pass

    def gone(self, machine: str) -> None:
        self._queue.look()

    def changed(self) -> None:
        self._queue.look()


@dataclass
class Road:
    """One run of a trip; kept apart from `travel`, so that one may look at all of it."""

    trip: Trip
    seed: int = 0

    def __post_init__(self) -> None:
        """Have everything there and nothing begun."""
        trip, self.agenda = self.trip, Agenda()
        self.cluster = SimulatedCluster(
            self.agenda, np.random.default_rng(self.seed), dict(trip.machines), trip.hazards
        )
        self.queue = OneQueue(lambda: self.cluster.there, lambda: self.agenda.now)
        self.is_done = False
        self.trials = self._tasks("trials", trip.after, self._end)
        self.training = SimulatedTraining(self.cluster, self.queue, trip.training, self._trained)
        self.images = self._tasks("images", trip.before, self._train)
        self.cluster.residents += [_QueueLook(self.queue), self.images, self.training, self.trials]
        self.began_s = self.trained_s = 0.0

    def travel(self) -> Arrival:
        """Run it to its end. StageError where it never comes to one."""
        model = self.trip.training
        whole = {
            "images": sum(self.trip.before),
            "training": model.total_steps * model.step_seconds(model.size.most),
            "trials": sum(self.trip.after),
        }
        self.queue.rank(longest_chains(whole, {"training": ["images"], "trials": ["training"]}))
        self.images.begin()
        latest = HOPELESS * sum(whole.values()) + 30 * DAY_S
        if not self.agenda.pass_until(lambda: self.is_done, latest):
            found = (
                f"step {self.training.steps.committed} of {model.total_steps} after {self.agenda.now / DAY_S:.0f} days"
            )
            raise StageError("simulate a run to its end", found, "give it more machines, or save more often")
        steps = self.training.steps
        spent = {**self.training.spent, "again": steps.again_s}
        spent["steps"] -= steps.again_s
        return Arrival(
            seconds=self.agenda.now,
            training_s=self.trained_s - self.began_s,
            ideal_s=whole["training"],
            spent=spent,
            starts=self.training.starts,
            commands=self.training.commands,
            steps_lost=steps.lost,
            happened=dict(self.cluster.counts),
        )

    def _tasks(self, node: str, seconds: tuple[float, ...], ended: Callable[[], None]) -> SimulatedTasks:
        return SimulatedTasks(self.cluster, self.queue, seconds, self.trip.bundle, ended, node)

    def _train(self) -> None:
        self.began_s = self.agenda.now
        self.training.begin()

    def _trained(self) -> None:
        self.trained_s = self.agenda.now
        self.trials.begin()

    def _end(self) -> None:
        self.is_done = True


def travel(trip: Trip, seed: int = 0) -> Arrival:
    """Simulate a run; the same seed is the same run."""
    return Road(trip, seed).travel()
