"""What waits in the one queue: a task, or all ranks of a gang, and what its turn gives it. Knows no queue, no Ray."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic

from vitpipe.infra.work import Item

Sizes = Mapping[str, float]
"""Amounts of resources as Ray names them: `{"CPU": 4, "GPU": 0.25}`."""
Place = tuple[bool, float, float, int]
"""Where a ticket stands; the least goes first, and no two are equal."""

SLACK = 1e-6
"""Fractions of a GPU: ten tenths are a hair over 1."""
_GRAIN = math.log(1.25)
"""Estimates that differ by less stand in one line."""
_LEAST_S = 1e-3
"""So are all that are shorter."""


def shortest_of(grain: int) -> float:
    """Give the seconds that no ticket of a line of this length has less of, or a hair less."""
    return math.exp(grain * _GRAIN) * (1 - SLACK) if grain * _GRAIN > math.log(_LEAST_S) else 0.0


@dataclass(frozen=True)
class Shape:
    """What tickets ask for: so many bundles at once, each of them on one machine."""

    asked: tuple[tuple[str, float], ...]
    """Amounts above 0 of one bundle, by name."""
    count: int = 1
    is_gang: bool = False

    @cached_property
    def names(self) -> frozenset[str]:
        """The resources that are asked for."""
        return frozenset(name for name, _ in self.asked)

    def __str__(self) -> str:
        bundle = ", ".join(f"{amount:g} {name}" for name, amount in self.asked) or "nothing"
        return f"{self.count} x ({bundle})" if self.is_gang or self.count > 1 else bundle


LineName = tuple[Shape, str, int | None]
"""What the tickets of one line share: shape, node and length, but for a quarter."""


@dataclass(eq=False)
class Line:
    """Those that ask for the same, for one node and for about as long; the first speaks for all."""

    name: LineName
    places: list[Place] = field(default_factory=list)
    """A heap; a place that nobody holds any more stays until it is the first."""
    count: int = 0
    """How many wait in it."""

    def length(self) -> tuple[bool, int]:
        """Give what lines of a shape and node are ordered by: those of unknown length, then the shorter ones."""
        grain = self.name[2]
        return (grain is not None, grain or 0)

    def __lt__(self, other: "Line") -> bool:
        """Order lines with the same first place: one of them is past, and is dropped where it is met."""
        return id(self) < id(other)


@dataclass(eq=False)
class Ticket(Generic[Item]):
    """One task, or all ranks of a gang, that wait for their turn.

    A gang joins with one ticket of as many bundles as it has ranks at least, waits for `go`, and leaves when all its
    ranks have ended. A restart keeps it. Where its ranks then are is told by `OneQueue.placed`, if it is elsewhere
    than `machines` says, or if they are more.
    """

    item: Item
    bundle: Sizes
    """What each bundle asks of one machine."""
    seconds: float | None
    """Estimated seconds of the task or gang itself; None for an unknown length."""
    go: Callable[["Ticket[Item]"], None]
    """Called once it is its turn; must neither block nor call the queue."""
    is_gang: bool = False
    """Whether it stands for ranks in lockstep: these go before every task."""
    count: int = 1
    """Bundles that are needed at once."""
    node: str = ""
    """Whose work it is."""
    losses: int = 0
    """How often its machine or its process was lost."""
    order: int = -1
    """Its number in the order of arrival; of equals the earlier goes first."""
    machines: tuple[str, ...] = ()
    """Once it is its turn: the machine of each bundle, where the queue holds the room for it."""
    began: float = 0.0
    """When its turn came, by the queue's clock."""
    ends: float = math.inf
    """When it is expected to end, by the same clock; infinite where nobody knows."""
    counted: float = 0.0
    """Until when what it holds has been added up."""

    @cached_property
    def shape(self) -> Shape:
        """What it asks for, as all do that ask for the same."""
        asked = tuple(sorted((name, float(amount)) for name, amount in self.bundle.items() if amount > 0))
        return Shape(asked, self.count, self.is_gang)

    @cached_property
    def line(self) -> LineName:
        """The line that it stands in."""
        grain = None if self.seconds is None else math.floor(math.log(max(self.seconds, _LEAST_S)) / _GRAIN)
        return (self.shape, self.node, grain)

    def place(self, chain: float) -> Place:
        """Its place in the queue: gangs, then the longest chain, then the longest itself, then the order of arrival."""
        return (not self.is_gang, -chain, -math.inf if self.seconds is None else -self.seconds, self.order)

    def lose(self, max_failures: int) -> bool:
        """Count one loss more; whether it may run again after it."""
        self.losses += 1
        return self.losses <= max_failures

    def ends_at_last(self, now: float) -> float:
        """When it will have ended by its estimate, which is taken to be too small by half once it has passed."""
        if self.ends > now or math.isinf(self.ends):
            return self.ends
        estimate, passed = max(self.ends - self.began, SLACK), now - self.began
        doubled = estimate * 2.0 ** (math.floor(math.log2(max(passed / estimate, 1.0))) + 1)
        at = self.began + doubled
        return at if at > now else at + doubled  # rounded to now itself


AnyTicket = Ticket[Any]
"""A ticket for any item: the queue of all nodes looks at none."""
