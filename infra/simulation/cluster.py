"""Machines to which things happen: processes that crash or hang, machines that are lost, taken away or slow.

What happens when is drawn from a seed; knows nothing of what runs on the machines.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from vitpipe.infra.ray.tickets import Sizes
from vitpipe.infra.simulation.agenda import Agenda

DAY_S = 86400.0
AWAY_S = 4 * 3600.0
"""For which a machine that was taken away is missing, in the mean: assumed."""


@dataclass(frozen=True)
class Hazards:
    """How often things go wrong: mean seconds between two of a kind on one machine, infinite for never."""

    crash_s: float = math.inf
    """A process dies, its machine stays."""
    hang_s: float = math.inf
    """A process lives, and lets the others wait."""
    loss_s: float = math.inf
    """The machine is lost without a word."""
    repair_s: float = DAY_S
    """Until it or another is there, in the mean."""
    preempt_s: float = math.inf
    """The machine is to be taken away."""
    grace_s: float = 120.0
    """Between this being told and done."""
    away_s: float = AWAY_S
    """Until it or another is there, in the mean."""
    slow_s: float = math.inf
    """The machine becomes slow, and all that go in step with it."""
    slow_for_s: float = 6 * 3600.0
    """For how long, in the mean."""
    slow_factor: float = 1.5
    """Times as long as a step takes then."""

    def interruption_s(self, machines: int) -> float:
        """Mean seconds between two interruptions of what runs on so many machines; infinite where nothing happens."""
        rate = sum(1 / mean for mean in (self.crash_s, self.hang_s, self.loss_s, self.preempt_s))
        return 1 / (rate * machines) if rate else math.inf


class Residents(Protocol):
    """What runs on the machines, and is told what happens to them."""

    def hit(self, machine: str, what: Literal["crash", "hang"]) -> None:
        """Lose a process there, or have it hang."""

    def gone(self, machine: str) -> None:
        """Lose all that runs there."""

    def changed(self) -> None:
        """Hear that machines have come, are to go, or run at another speed."""


@dataclass
class SimulatedCluster:
    """The machines of a simulation."""

    agenda: Agenda
    rng: np.random.Generator
    all: dict[str, Sizes]
    """What each has while it is there."""
    hazards: Hazards
    residents: list[Residents] = field(default_factory=list)
    there: dict[str, Sizes] = field(default_factory=dict)
    """Those that live."""
    draining: dict[str, float] = field(default_factory=dict)
    """Those that will be taken away; the value is Unix time in ms with Ray, and 0 here."""
    slow: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    """What happened, by kind."""

    def __post_init__(self) -> None:
        """Begin with all machines."""
        self.there = dict(self.all)
        self._names = list(self.all)
        hazards = self.hazards
        for mean, happen in (
            (hazards.crash_s, lambda name: self.strike(name, "crash")),
            (hazards.hang_s, lambda name: self.strike(name, "hang")),
            (hazards.loss_s, self.lose),
            (hazards.preempt_s, self.drain),
            (hazards.slow_s, self._slow_down),
        ):
            self._appoint(mean, happen)

    def living(self) -> dict[str, Sizes]:
        """Machines that live and are not to be taken away."""
        return {name: sizes for name, sizes in self.there.items() if name not in self.draining}

    def strike(self, name: str, what: Literal["crash", "hang"]) -> None:
        """Have a process on a machine die or hang."""
        self._tell(what, lambda one: one.hit(name, what))

    def lose(self, name: str, back_s: float | None = None) -> None:
        """Lose a machine, and have it back after `back_s`; by default as the hazards say."""
        del self.there[name]
        self.draining.pop(name, None)
        self.slow.discard(name)
        self._tell("machine lost", lambda one: one.gone(name))
        back = self.rng.exponential(self.hazards.repair_s) if back_s is None else back_s
        self.agenda.after(back, lambda: self._come(name))

    def drain(self, name: str) -> None:
        """Announce that a machine is taken away, and take it after the grace."""
        if name in self.draining:
            return
        self.draining[name] = 0.0
        self._tell("preempted", lambda one: one.changed())
        self.agenda.after(self.hazards.grace_s, lambda: self._take(name))

    def speed(self, machines: set[str]) -> float:
        """Times as long as a step takes that all of them make together."""
        return self.hazards.slow_factor if machines & self.slow else 1.0

    def _take(self, name: str) -> None:
        if name in self.draining:  # else it was lost meanwhile
            self.lose(name, self.rng.exponential(self.hazards.away_s))

    def _come(self, name: str) -> None:
        self.there[name] = self.all[name]
        self._tell("machine back", lambda one: one.changed())

    def _slow_down(self, name: str) -> None:
        self.slow.add(name)
        self._tell("slow", lambda one: one.changed())
        self.agenda.after(self.rng.exponential(self.hazards.slow_for_s), lambda: self._speed_up(name))

    def _speed_up(self, name: str) -> None:
        if name in self.slow:
            self.slow.remove(name)
            self._tell("fast again", lambda one: one.changed())

    def _tell(self, what: str, tell: Callable[[Residents], None]) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        for one in self.residents:
            tell(one)

    def _appoint(self, mean: float, happen: Callable[[str], None]) -> None:
        """Have it happen to one of the machines, and again; what would happen to one that is away does not."""

        def befall() -> None:
            name = self._names[int(self.rng.integers(len(self._names)))]
            if name in self.there:
                happen(name)
            self._appoint(mean, happen)

        if not math.isinf(mean):
            self.agenda.after(self.rng.exponential(mean / len(self._names)), befall)
