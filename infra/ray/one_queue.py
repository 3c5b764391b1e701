"""The one queue of a driver: which task or gang of which node goes next, and on which machine.

Gangs first, then by the critical path; who lacks room reserves it, and others slip in front where they are in nobody's
way (EASY backfilling; docs/decisions/0034). Pure: knows neither Ray nor a clock of its own, so that a simulation may
drive it.
"""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from vitpipe.infra.ray.machines import Machines, Reservation
from vitpipe.infra.ray.pace import Pace
from vitpipe.infra.ray.reasons import Standing
from vitpipe.infra.ray.tickets import AnyTicket, Line, LineName, Place, Shape, Sizes, Ticket

__all__ = ["AnyTicket", "OneQueue", "Shape", "Sizes", "Ticket"]

SHOWN = 16
"""Bundles that wait for room and are shown."""

First = tuple[Place, Line]
"""A line by the place of its first."""


@dataclass
class OneQueue:
    """Hands tickets on while what they ask for is free; thread-safe.

    In the order of their places each ticket takes room that is free, if it is in the way of nobody before it. One that
    lacks room reserves it on the machines where it will be free the earliest, by the estimates of what runs there. Who
    comes later may take of that what is over, or what it gives back in time; a ticket of unknown length gives nothing
    back in time, and whose end is unknown may end at any moment. One for which no machines are there reserves nothing.
    An event costs the logarithm of how many wait, for each shape that is asked for.
    """

    machines: Callable[[], Mapping[str, Sizes]]
    """What each machine has; asked by `look`."""
    clock: Callable[[], float] = time.monotonic
    show: Callable[[list[Shape]], None] = lambda shapes: None
    """Told at each `look` what the first of those ask for that wait for room, so that an autoscaler hears of it."""
    there: Machines = field(default_factory=Machines)
    pace: Pace = field(default_factory=Pace)
    _waiting: dict[Place, AnyTicket] = field(default_factory=dict)
    _lines: dict[LineName, Line] = field(default_factory=dict)
    _firsts: dict[Shape, list[First]] = field(default_factory=dict)
    """By shape a heap of its lines, each by its first place; what is no longer true stays until it is the first."""
    _chains: dict[str, float] = field(default_factory=dict)
    _out: dict[AnyTicket, None] = field(default_factory=dict)
    """Tickets whose turn has come, and that have not left."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def join(self, tickets: Iterable[AnyTicket]) -> None:
        """Take tickets in, all before any of them goes; one that comes again keeps its place."""
        with self._lock:
            for ticket in tickets:
                ticket.order = next(self._numbers) if ticket.order < 0 else ticket.order
                self._enter(ticket)
            if not self.there.has:
                self.there.become(self.machines())
            self._hand_on()

    def leave(self, tickets: Sequence[AnyTicket], ended: bool = False) -> None:
        """Take tickets out: others may have what they held. With `ended`, their times are measured ones from now on."""
        with self._lock:
            for ticket in tickets:
                if ticket in self._out:
                    del self._out[ticket]
                    self.there.release(ticket)
                    if ended:
                        self._learn(ticket)
                elif self._waiting.pop(self._place(ticket), None):
                    self._lines[ticket.line].count -= 1
            self._hand_on()

    def _learn(self, ended: AnyTicket) -> None:
        """Expect of those of its node that run what this one took: their ends are compared with those of others."""
        self.pace.measured(ended, self.clock() - ended.began)
        if self.pace.has_moved(ended.node):
            for ticket in [one for one in self._out if one.node == ended.node]:
                ends = ticket.began + self.pace.expected(ticket)
                if ends != ticket.ends:
                    self.there.release(ticket)
                    ticket.ends = ends
                    self.there.hold(ticket)

    def look(self) -> None:
        """Ask again what machines there are: they come and go."""
        has = self.machines()
        with self._lock:
            self.there.become(has)
            self._hand_on()
            shapes = self._wanted()
        self.show(shapes)

    def rank(self, chains: Mapping[str, float]) -> None:
        """Order by these seconds from the beginning of a node to the end of the longest chain that waits for it.

        A node that is not among them is of unknown length: it goes before all others, for it may be long.
        """
        with self._lock:
            tickets = list(self._waiting.values())
            self._chains = dict(chains)
            for kept in (self._waiting, self._lines, self._firsts):
                kept.clear()
            for ticket in tickets:
                self._enter(ticket)
            self._hand_on()

    def placed(self, ticket: AnyTicket, machines: Sequence[str]) -> None:
        """Say on which machines the bundles of a ticket really are, one name a bundle, whatever their number."""
        with self._lock:
            if ticket in self._out:
                self.there.release(ticket)
                ticket.machines = tuple(machines)
                self.there.hold(ticket)
                self._hand_on()

    def standing(self, node: str) -> Standing | None:
        """Say how the first ticket of a node that waits stands in the queue; None while none does."""
        with self._lock:
            heads = self._heads()
            shape = next((line.name[0] for _, line in heads if line.name[1] == node), None)
            if shape is None:
                return None
            before: dict[str, int] = {}
            now = self.clock()
            held = self.there.reserve(shape, now, [])
            seconds = held.expected - now if held else math.inf
            for first, line in heads:
                if (name := line.name)[1] == node:
                    break
                if name[0].names & shape.names and (room := self.there.idle_room(name[0].asked) // name[0].count):
                    before[name[1]] = before.get(name[1], 0) + line.count
                    seconds += line.count * self.pace.expected(self._waiting[first]) / room
            known = None if math.isinf(seconds) else seconds
            return Standing(shape, self.there.has, before, len(self._waiting), self.there.nodes(shape.names), known)

    def _wanted(self) -> list[Shape]:
        found: list[Shape] = []
        left = SHOWN
        for _, line in self._heads():
            shape = line.name[0]
            if left > 0 and not self.there.has_room(shape):
                count = min(line.count, -(-left // shape.count))
                found += [shape] * count
                left -= count * shape.count
        return found

    def _heads(self) -> list[First]:
        """List all lines in the order of their firsts."""
        return sorted(((head, one) for one in [*self._lines.values()] if (head := self._head(one))), key=itemgetter(0))

    def _enter(self, ticket: AnyTicket) -> None:
        place = self._place(ticket)
        self._waiting[place] = ticket
        line = self._lines.get(ticket.line) or self._lines.setdefault(ticket.line, Line(ticket.line))
        line.count += 1
        heapq.heappush(line.places, place)
        if line.places[0] == place:
            heapq.heappush(self._firsts.setdefault(ticket.shape, []), (place, line))

    def _place(self, ticket: AnyTicket) -> Place:
        return ticket.place(self._chains.get(ticket.node, math.inf))

    def _hand_on(self) -> None:
        now = self.clock()
        lacking: list[Shape] = []
        reserved: list[Reservation] = []
        others: dict[Shape, list[First]] = {}
        heads = [(*first, shape) for shape in list(self._firsts) if (first := self._first(shape))]
        heapq.heapify(heads)
        while heads:
            place, line, shape = heapq.heappop(heads)
            if not self.there.has_room(shape):
                lacking.append(shape)
                continue
            for one in lacking:
                if held := self.there.reserve(one, now, reserved):
                    reserved.append(held)
            lacking.clear()
            goes = self._goes(self._waiting[place], now, reserved)
            if goes and shape not in others:
                following = self._first(shape)
            else:  # a line whose first is in somebody's way: the other lines may have shorter ones
                if shape not in others:
                    others[shape] = self._beside(line, self.there.latest(shape, reserved) - now)
                elif goes and (head := self._head(line)):
                    heapq.heappush(others[shape], (head, line))
                following = heapq.heappop(others[shape]) if others[shape] else None
            if following is not None:
                heapq.heappush(heads, (*following, shape))

    def _goes(self, ticket: AnyTicket, now: float, reserved: list[Reservation]) -> bool:
        """Give a ticket its turn, if that is in the way of nobody before it."""
        ends = now + self.pace.expected(ticket)
        machines = self.there.chosen(ticket.shape, ends, reserved)
        if machines is None:
            return False
        del self._waiting[self._place(ticket)]
        self._lines[ticket.line].count -= 1
        ticket.machines, ticket.began, ticket.ends = machines, now, ends
        self._out[ticket] = None
        self.there.hold(ticket)
        for one in reserved:
            for machine in machines:
                one.take(machine, ticket.shape.asked, 1, ends)
        ticket.go(ticket)
        return True

    def _first(self, shape: Shape) -> First | None:
        """The first of all lines of a shape, what is no longer true being dropped; None when nobody waits."""
        firsts = self._firsts[shape]
        while firsts:
            place, line = firsts[0]
            head = self._head(line)
            if head == place:
                return place, line
            if head is None:
                heapq.heappop(firsts)
            else:
                heapq.heapreplace(firsts, (head, line))
        del self._firsts[shape]
        return None

    def _beside(self, line: Line, seconds: float) -> list[First]:
        """The firsts of the other lines of a shape, as a heap, without those of which nobody takes as few seconds."""
        some = {
            id(other): other for _, other in self._firsts[line.name[0]] if self.pace.at_least(other.name) <= seconds
        }
        some.pop(id(line), None)
        firsts = [(head, other) for other in some.values() if (head := self._head(other))]
        heapq.heapify(firsts)
        return firsts

    def _head(self, line: Line) -> Place | None:
        """The first place of a line that somebody holds, those before it being dropped; None when nobody waits."""
        while line.places and line.places[0] not in self._waiting:
            heapq.heappop(line.places)
        if line.places:
            return line.places[0]
        if self._lines.get(line.name) is line:
            del self._lines[line.name]
        return None
