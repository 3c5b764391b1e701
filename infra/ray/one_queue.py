"""The one queue of a driver: which task or gang of which node is handed to Ray next, the longest first.

Graham's rule: longest first ends at most a third later than the best order, and in practice a few percent. Pure: knows
neither Ray nor time, so that a test may drive it by a clock of its own.
"""

import heapq
import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic

from vitpipe.infra.work import Item

_SLACK = 1e-6
"""Fractions of a GPU: ten tenths are a hair over 1."""

Sizes = Mapping[str, float]
"""Amounts of resources as Ray names them: `{"CPU": 4, "GPU": 0.25}`."""


Place = tuple[bool, float, int]
"""Where a ticket stands; the least goes first, and no two are equal."""


@dataclass(frozen=True)
class Shape:
    """What tickets ask for; those of one shape wait in one line."""

    asked: tuple[tuple[str, float], ...]
    """Amounts above 0 by name."""
    is_gang: bool = False

    @cached_property
    def names(self) -> frozenset[str]:
        """The resources that are asked for."""
        return frozenset(name for name, _ in self.asked)


@dataclass(eq=False)
class Ticket(Generic[Item]):
    """One task, or all ranks of a gang, that wait for their turn."""

    item: Item
    bundle: Sizes
    seconds: float | None
    """Estimated seconds of the task and of what can only begin after it. None, for an unknown length, goes before all
    others, for it may be long."""
    go: Callable[["Ticket[Item]"], None]
    """Called once it is its turn; must neither block nor call the queue."""
    is_gang: bool = False
    """Whether it stands for all ranks of a gang: these go before every task, and none passes them."""
    losses: int = 0
    order: int = -1
    """Its number in the order of arrival; of equals the earlier goes first."""

    @cached_property
    def shape(self) -> Shape:
        """What it asks for, as all do that ask for the same."""
        asked = tuple(sorted((name, amount) for name, amount in self.bundle.items() if amount > 0))
        return Shape(asked, self.is_gang)

    @property
    def place(self) -> Place:
        """Its place in the queue: gangs, then the longest first, then the order of arrival."""
        return (not self.is_gang, -math.inf if self.seconds is None else -self.seconds, self.order)


AnyTicket = Ticket[Any]
"""A ticket for any item: the queue of all nodes looks at none."""


@dataclass
class OneQueue:
    """Hands tickets on while what they ask for is free; thread-safe.

    A ticket that does not fit holds back those behind it that want what it lacks, so that small ones do not starve it;
    others pass. Of tickets that ask for the same, the first speaks for all. `ahead` tickets more go than fit, so that
    an autoscaler sees the demand; a gang among them holds back others all the same, if the machines that are there
    could hold it. An event costs the logarithm of how many wait, for each thing that is asked for.
    """

    totals: Callable[[], Sizes]
    """What the whole cluster has; asked by `look`."""
    ahead: int = 0
    _waiting: dict[Place, AnyTicket] = field(default_factory=dict)
    _lines: dict[Shape, list[Place]] = field(default_factory=dict)
    """Heaps of places, by what is asked for; one that nobody holds any more stays until it is the first."""
    _out: dict[AnyTicket, bool] = field(default_factory=dict)
    """Tickets that were handed on, each with whether it fitted."""
    _held: Counter[Shape] = field(default_factory=Counter)
    """How many of each shape fitted and have not left: their sum is what is in use."""
    _beyond: dict[AnyTicket, None] = field(default_factory=dict)
    """Those that were handed on though they did not fit, in the order of their turns."""
    _has: Sizes = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def join(self, tickets: Iterable[AnyTicket]) -> None:
        """Take tickets in, all before any of them goes; one that comes again keeps its place."""
        with self._lock:
            for ticket in tickets:
                ticket.order = next(self._numbers) if ticket.order < 0 else ticket.order
                self._waiting[ticket.place] = ticket
                heapq.heappush(self._lines.setdefault(ticket.shape, []), ticket.place)
            if not self._has:
                self._has = self.totals()
            self._hand_on()

    def leave(self, tickets: Sequence[AnyTicket]) -> None:
        """Take tickets out that have ended or that nobody wants any more: others may have what they held."""
        with self._lock:
            for ticket in tickets:
                self._waiting.pop(ticket.place, None)
                self._beyond.pop(ticket, None)
                if self._out.pop(ticket, False):
                    self._held[ticket.shape] -= 1
            self._hand_on()

    def look(self) -> None:
        """Ask again what the cluster has: machines come and go."""
        has = self.totals()
        with self._lock:
            self._has = has
            self._hand_on()

    def _hand_on(self) -> None:
        free = dict(self._has)
        for shape, count in self._held.items():
            for name, amount in shape.asked:
                free[name] = free.get(name, 0.0) - count * amount
        kept: set[str] = set()
        for ticket in [ticket for ticket in self._beyond if ticket.is_gang]:
            fits, lacks = _take(ticket.shape, free, kept)
            if fits:
                self._begins(ticket, fits)
            kept |= lacks if self._may_fit(ticket.shape) else set()
        lacking = set(kept)
        heads = [head for head in map(self._head, list(self._lines)) if head is not None]
        heapq.heapify(heads)
        while heads:
            ticket = self._waiting[heapq.heappop(heads)]
            shape = ticket.shape
            fits, lacks = _take(shape, free, lacking)
            if not fits and self._out and (len(self._beyond) >= self.ahead or kept & shape.names):
                lacking |= lacks
                continue
            if ticket.is_gang and self._may_fit(shape):
                kept |= lacks
                lacking |= kept
            del self._waiting[ticket.place]
            self._begins(ticket, fits)
            ticket.go(ticket)
            if (head := self._head(shape)) is not None:
                heapq.heappush(heads, head)

    def _begins(self, ticket: AnyTicket, fits: bool) -> None:
        self._out[ticket] = fits
        if fits:
            self._held[ticket.shape] += 1
            self._beyond.pop(ticket, None)
        else:
            self._beyond[ticket] = None

    def _head(self, shape: Shape) -> Place | None:
        """The first place of a line that somebody holds, those before it being dropped; None when nobody waits."""
        line = self._lines[shape]
        while line and line[0] not in self._waiting:
            heapq.heappop(line)
        if line:
            return line[0]
        del self._lines[shape]
        return None

    def _may_fit(self, shape: Shape) -> bool:
        """Whether the machines that are there could hold it, were they idle."""
        return all(self._has.get(name, 0.0) + _SLACK >= amount for name, amount in shape.asked)


def _take(shape: Shape, free: dict[str, float], lacking: set[str]) -> tuple[bool, set[str]]:
    """Take what is asked for from `free`, if it is there and nobody ahead lacks it; and say what of it is not there."""
    lacks = {name for name, amount in shape.asked if free.get(name, 0.0) + _SLACK < amount}
    fits = not lacks and not lacking & shape.names
    if fits:
        for name, amount in shape.asked:
            free[name] -= amount
    return fits, lacks
