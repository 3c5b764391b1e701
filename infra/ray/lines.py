"""Tickets that wait, in lines of those that are alike: whose first is the next. Knows no machines and no time."""

import heapq
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

from vitpipe.infra.ray.tickets import AnyTicket, Line, LineName, Place, Shape

First = tuple[Place, Line]
"""A line by the place of its first."""


@dataclass
class WaitingLines:
    """Lines by what their tickets ask for. What is no longer true of them is found out when it stands first."""

    waiting: dict[Place, AnyTicket]
    """All who wait; who is taken out of it has left his line."""
    _named: dict[LineName, Line] = field(default_factory=dict)
    _firsts: dict[Shape, list[First]] = field(default_factory=dict)
    """By shape a heap of its lines, each by its first place."""
    _lengths: dict[Shape, dict[str, list[Line]]] = field(default_factory=dict)
    """By shape and node its lines, of unknown length first, then the shorter first."""

    def __len__(self) -> int:
        """Count the lines."""
        return len(self._named)

    def enter(self, ticket: AnyTicket, place: Place) -> None:
        """Put a ticket into its line."""
        self.waiting[place] = ticket
        line = self._named.get(ticket.line)
        if line is None:
            line = self._named[ticket.line] = Line(ticket.line)
            insort(self._lengths.setdefault(ticket.shape, {}).setdefault(ticket.node, []), line, key=Line.length)
        line.count += 1
        heapq.heappush(line.places, place)
        if line.places[0] == place:
            heapq.heappush(self._firsts.setdefault(ticket.shape, []), (place, line))

    def leave(self, place: Place) -> None:
        """Take a ticket out of its line, if one waits there."""
        ticket = self.waiting.pop(place, None)
        if ticket is not None:
            self._named[ticket.line].count -= 1

    def clear(self) -> list[AnyTicket]:
        """Take all tickets out."""
        tickets = list(self.waiting.values())
        for kept in (self.waiting, self._named, self._firsts, self._lengths):
            kept.clear()
        return tickets

    def firsts(self) -> list[tuple[Place, Line, Shape]]:
        """List the first of each shape."""
        return [(*first, shape) for shape in list(self._firsts) if (first := self.first(shape))]

    def first(self, shape: Shape) -> First | None:
        """The first of all lines of a shape, what is no longer true being dropped; None when nobody waits."""
        firsts = self._firsts[shape]
        while firsts:
            place, line = firsts[0]
            head = self.head(line)
            if head == place:
                return place, line
            if head is None:
                heapq.heappop(firsts)
            else:
                heapq.heapreplace(firsts, (head, line))
        del self._firsts[shape]
        return None

    def beside(self, line: Line, seconds: float, at_least: Callable[[LineName], float]) -> list[First]:
        """The firsts of the other lines of a shape, as a heap, without those of which nobody takes as few seconds.

        `at_least` says what each ticket of a line takes or more; of a node's lines of known length, the longer more.
        """
        firsts: list[First] = []
        for lines in list(self._lengths[line.name[0]].values()):
            for other in list(lines):
                if at_least(other.name) > seconds:
                    if other.name[2] is not None:
                        break  # those behind it are longer
                elif other is not line and (head := self.head(other)):
                    firsts.append((head, other))
        heapq.heapify(firsts)
        return firsts

    def heads(self) -> list[First]:
        """List all lines in the order of their firsts."""
        lines = list(self._named.values())
        return sorted(((head, one) for one in lines if (head := self.head(one))), key=itemgetter(0))

    def head(self, line: Line) -> Place | None:
        """The first place of a line that somebody holds, those before it being dropped; None when nobody waits."""
        while line.places and line.places[0] not in self.waiting:
            heapq.heappop(line.places)
        if line.places:
            return line.places[0]
        if self._named.get(line.name) is line:
            shape, node, _ = line.name
            del self._named[line.name]
            self._lengths[shape][node].remove(line)
            if not self._lengths[shape][node]:
                del self._lengths[shape][node]
        return None
