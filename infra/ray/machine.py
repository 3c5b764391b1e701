"""One machine: what is free there, and what will be by the estimates of what runs there.

Pure bookkeeping; knows nothing of who waits. Its costs grow with what ends soon, not with all that runs.
"""

import heapq
import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from vitpipe.infra.ray.tickets import SLACK, AnyTicket, Sizes

Asked = tuple[tuple[str, float], ...]
"""Amounts above 0 of one bundle, by name."""
Coming = tuple[float, float, int]
"""When more bundles than before have room, when the last began that then ends, and how many more."""
_End = tuple[float, float, int, AnyTicket]


def bundles_in(asked: Asked, free: Sizes) -> int:
    """Count how many of a bundle have room in what is free."""
    fewest = 1_000_000
    for name, amount in asked:
        count = int((free.get(name, 0.0) + SLACK) // amount)
        if count < fewest:
            fewest = count
    return fewest


@dataclass
class MachineRoom:
    """What is free on a machine, and who holds the rest until when."""

    name: str
    number: int
    """Its place among the machines: of equals the first is taken."""
    free: dict[str, float]
    held: dict[AnyTicket, int] = field(default_factory=dict)
    """How many bundles of each ticket are here."""
    version: int = 0
    """Another after each change."""
    _known: list[_End] = field(default_factory=list)
    """Tickets whose end is known, in its order: end, beginning, number, ticket."""
    _unknown: list[_End] = field(default_factory=list)
    """The others, in the order of their beginning."""
    _loose: dict[str, float] = field(default_factory=dict)
    """What the others hold together."""
    _comings: dict[tuple[Asked, int], tuple[float, list[Coming]]] = field(default_factory=dict)
    """Answers of `comings` with the time until which they are true; none outlives a change."""

    def hold(self, ticket: AnyTicket, count: int) -> None:
        """Count bundles of a ticket in."""
        self._comings.clear()
        self.version += 1
        self.held[ticket] = count
        _give(self.free, ticket, -count)
        end = (ticket.ends, ticket.began, ticket.order, ticket)
        if math.isinf(ticket.ends):
            insort(self._unknown, end, key=itemgetter(1, 2))
            _give(self._loose, ticket, count)
        else:
            insort(self._known, end)

    def release(self, ticket: AnyTicket) -> None:
        """Count all bundles of a ticket out."""
        self._comings.clear()
        self.version += 1
        count = self.held.pop(ticket)
        _give(self.free, ticket, count)
        if math.isinf(ticket.ends):
            del self._unknown[bisect_left(self._unknown, (ticket.began, ticket.order), key=itemgetter(1, 2))]
            _give(self._loose, ticket, -count)
        else:
            del self._known[bisect_left(self._known, (ticket.ends, ticket.began, ticket.order))]

    def first(self, asked: Asked, now: float) -> tuple[float, float, float] | None:
        """Say what `comings` does of one bundle: when it has room, when the last began that then ends.

        The third is until when that is true. None where it never has room.
        """
        free, lacking = self.free, dict[str, float]()
        for name, amount in asked:
            if free.get(name, 0.0) + SLACK < amount:
                lacking[name] = amount
        if not lacking:
            return -math.inf, -math.inf, math.inf
        here = {name: free.get(name, 0.0) for name in lacking}
        until = math.inf
        for end, began, _, ticket in self._ends(now):
            until = min(until, end)
            held = self.held[ticket]
            for name, amount in ticket.shape.asked:
                if name in lacking:
                    here[name] += amount * held
                    if here[name] + SLACK >= lacking[name]:
                        del lacking[name]
            if not lacking:
                return end, began, until
        return None

    def booking(self, asked: Asked, now: float) -> tuple[float, dict[str, float]]:
        """Say when one bundle may have room at the earliest, and what is over then: `soonest` and `spare` in one."""
        overdue, free = self._at(now)
        start = now
        lacking = [(name, amount) for name, amount in asked if free.get(name, 0.0) + SLACK < amount]
        for end, _, _, ticket in self._known[overdue:] if overdue else self._known:
            if not lacking and end > start:
                break
            held = self.held[ticket]
            for name, amount in ticket.shape.asked:
                free[name] = free.get(name, 0.0) + amount * held
            if lacking:
                start = end
                lacking = [(name, amount) for name, amount in lacking if free.get(name, 0.0) + SLACK < amount]
        for name, amount in asked:
            free[name] = free.get(name, 0.0) - amount
        return start, free

    def comings(self, asked: Asked, most: int, now: float) -> list[Coming]:
        """List when bundles have room, up to `most`, by the latest ends of what runs here; what is free is at -inf."""
        until, found = self._comings.get((asked, most), (-math.inf, []))
        if now >= until:
            until, found = math.inf, []
            free = dict(self.free)
            count = min(most, max(0, bundles_in(asked, free)))
            if count:
                found.append((-math.inf, -math.inf, count))
            for end, began, _, ticket in self._ends(now) if count < most else ():
                until = min(until, end)
                _give(free, ticket, self.held[ticket])
                more = min(most, max(0, bundles_in(asked, free))) - count
                if more > 0:
                    found.append((end, began, more))
                    count += more
                if count >= most:
                    break
            self._comings[(asked, most)] = until, found
        return found

    def soonest(self, asked: Asked, count: int, now: float) -> float:
        """When so many bundles may have room at the earliest."""
        overdue, free = self._at(now)
        at = now
        for end, _, _, ticket in self._known[overdue:]:
            if bundles_in(asked, free) >= count:
                break
            at = end
            _give(free, ticket, self.held[ticket])
        return at

    def spare(self, asked: Asked, count: int, start: float, now: float) -> dict[str, float]:
        """What may be free at `start`, without so many bundles."""
        overdue, free = self._at(now)
        for end, _, _, ticket in self._known[overdue:]:
            if end > start:
                break
            _give(free, ticket, self.held[ticket])
        for name, amount in asked:
            free[name] = free.get(name, 0.0) - amount * count
        return free

    def _at(self, now: float) -> tuple[int, dict[str, float]]:
        """What would be free if all ended now that may, and how many ends have passed."""
        free = dict(self.free)
        for name, amount in self._loose.items():
            free[name] = free.get(name, 0.0) + amount
        overdue = 0
        while overdue < len(self._known) and self._known[overdue][0] <= now:
            ticket = self._known[overdue][3]
            _give(free, ticket, self.held[ticket])
            overdue += 1
        return overdue, free

    def _ends(self, now: float) -> Iterator[_End]:
        """Yield all ends as `Ticket.ends_at_last` has them, in their order."""
        if not self._known or self._known[0][0] > now:
            yield from self._known
            yield from self._unknown
            return
        overdue = 0
        while overdue < len(self._known) and self._known[overdue][0] <= now:
            overdue += 1
        later = sorted(
            (ticket.ends_at_last(now), began, order, ticket) for _, began, order, ticket in self._known[:overdue]
        )
        known = itertools.islice(self._known, overdue, None)
        yield from heapq.merge(later, known)
        yield from self._unknown


def _give(free: dict[str, float], ticket: AnyTicket, count: int) -> None:
    for name, amount in ticket.shape.asked:
        free[name] = free.get(name, 0.0) + amount * count
