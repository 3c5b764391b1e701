"""The one queue of a driver: which task or gang of which node is handed to Ray next, the longest first.

Graham's rule: longest first ends at most a third later than the best order, and in practice a few percent. Pure: knows
neither Ray nor time, so that a test may drive it by a clock of its own.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from vitpipe.infra.work import Item

_SLACK = 1e-6
"""Fractions of a GPU: ten tenths are a hair over 1."""

Sizes = Mapping[str, float]
"""Amounts of resources as Ray names them: `{"CPU": 4, "GPU": 0.25}`."""


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

    @property
    def place(self) -> tuple[bool, float, int]:
        """Its place in the queue: gangs, then the longest first, then the order of arrival."""
        return (not self.is_gang, -math.inf if self.seconds is None else -self.seconds, self.order)


AnyTicket = Ticket[Any]
"""A ticket for any item: the queue of all nodes looks at none."""


@dataclass
class OneQueue:
    """Hands tickets on while what they ask for is free; thread-safe.

    A ticket that does not fit holds back those behind it that want what it lacks, so that small ones do not starve it;
    others pass. `ahead` tickets more go than fit, so that an autoscaler sees the demand; a gang among them holds back
    others all the same, if the machines that are there could hold it.
    """

    totals: Callable[[], Sizes]
    """What the whole cluster has; asked by `look`."""
    ahead: int = 0
    _waiting: list[AnyTicket] = field(default_factory=list)
    _out: dict[AnyTicket, bool] = field(default_factory=dict)
    """Tickets that were handed on, each with whether it fitted."""
    _has: Sizes = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def join(self, tickets: Iterable[AnyTicket]) -> None:
        """Take tickets in, all before any of them goes; one that comes again keeps its place."""
        with self._lock:
            for ticket in tickets:
                ticket.order = next(self._numbers) if ticket.order < 0 else ticket.order
                self._waiting.append(ticket)
            self._waiting.sort(key=lambda ticket: ticket.place)
            if not self._has:
                self._has = self.totals()
            self._hand_on()

    def leave(self, tickets: Sequence[AnyTicket]) -> None:
        """Take tickets out that have ended or that nobody wants any more: others may have what they held."""
        with self._lock:
            gone = set(tickets)
            self._waiting = [ticket for ticket in self._waiting if ticket not in gone]
            for ticket in gone:
                self._out.pop(ticket, None)
            self._hand_on()

    def look(self) -> None:
        """Ask again what the cluster has: machines come and go."""
        has = self.totals()
        with self._lock:
            self._has = has
            self._hand_on()

    def _hand_on(self) -> None:
        free = dict(self._has)
        for ticket, fitted in self._out.items():
            for name, amount in ticket.bundle.items() if fitted else ():
                free[name] = free.get(name, 0.0) - amount
        lacking: set[str] = set()
        kept: set[str] = set()
        for ticket in [ticket for ticket, fitted in self._out.items() if ticket.is_gang and not fitted]:
            self._out[ticket], lacks = self._take(ticket, free, lacking)
            kept |= lacks if self._may_fit(ticket) else set()
            lacking |= kept
        beyond = sum(not fitted for fitted in self._out.values())
        stay = []
        for ticket in self._waiting:
            fits, lacks = self._take(ticket, free, lacking)
            if not fits and self._out and (beyond >= self.ahead or kept & ticket.bundle.keys()):
                lacking |= lacks
                stay.append(ticket)
                continue
            if ticket.is_gang and self._may_fit(ticket):
                kept |= lacks
                lacking |= kept
            beyond += not fits
            self._out[ticket] = fits
            ticket.go(ticket)
        self._waiting = stay

    def _take(self, ticket: AnyTicket, free: dict[str, float], lacking: set[str]) -> tuple[bool, set[str]]:
        """Take what a ticket asks for from `free`, if it is there and nobody ahead lacks it; and say what it lacks."""
        asked = {name: amount for name, amount in ticket.bundle.items() if amount > 0}
        lacks = {name for name, amount in asked.items() if free.get(name, 0.0) + _SLACK < amount}
        fits = not lacks and not lacking & asked.keys()
        if fits:
            for name, amount in asked.items():
                free[name] -= amount
        return fits, lacks

    def _may_fit(self, ticket: AnyTicket) -> bool:
        """Whether the machines that are there could hold it, were they idle."""
        return all(self._has.get(name, 0.0) + _SLACK >= amount for name, amount in ticket.bundle.items())
