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

from vitpipe.infra.ray.held_time import HeldTime
from vitpipe.infra.ray.lines import First, WaitingLines
from vitpipe.infra.ray.machines import Machines, Reservation
from vitpipe.infra.ray.pace import Pace
from vitpipe.infra.ray.reasons import Standing
from vitpipe.infra.ray.tickets import AnyTicket, Place, Shape, Sizes, Ticket

__all__ = ["AnyTicket", "OneQueue", "Shape", "Sizes", "Ticket"]

SHOWN = 16
"""Bundles that wait for room and are shown."""


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
    _chains: dict[str, float] = field(default_factory=dict)
    _out: dict[AnyTicket, None] = field(default_factory=dict)
    """Tickets whose turn has come, and that have not left."""
    _held: HeldTime = field(default_factory=HeldTime)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._lines = WaitingLines(self._waiting)

    def join(self, tickets: Iterable[AnyTicket]) -> None:
        """Take tickets in, all before any of them goes; one that comes again keeps its place."""
        with self._lock:
            for ticket in tickets:
                ticket.order = next(self._numbers) if ticket.order < 0 else ticket.order
                self._lines.enter(ticket, self._place(ticket))
            if not self.there.has:
                self.there.become(self.machines())
            self._hand_on()

    def leave(self, tickets: Sequence[AnyTicket], ended: bool = False) -> None:
        """Take tickets out: others may have what they held. With `ended`, their times are measured ones from now on."""
        with self._lock:
            for ticket in tickets:
                if ticket in self._out:
                    del self._out[ticket]
                    self._held.add(ticket, self.clock())
                    self.there.release(ticket)
                    if ended:
                        self._learn(ticket)
                else:
                    self._lines.leave(self._place(ticket))
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
            tickets = self._lines.clear()
            self._chains = dict(chains)
            for ticket in tickets:
                self._lines.enter(ticket, self._place(ticket))
            self._hand_on()

    def placed(self, ticket: AnyTicket, machines: Sequence[str]) -> None:
        """Say on which machines the bundles of a ticket really are, one name a bundle, whatever their number."""
        with self._lock:
            if ticket in self._out:
                self._held.add(ticket, self.clock())
                self.there.release(ticket)
                ticket.machines = tuple(machines)
                self.there.hold(ticket)
                self._hand_on()

    def held(self, node: str) -> Mapping[str, float]:
        """Return how long a node's tickets have held each resource: seconds times its amount, by its name."""
        with self._lock:
            now = self.clock()
            for ticket in self._out:
                if ticket.node == node:
                    self._held.add(ticket, now)
            return self._held.of(node)

    def standing(self, node: str) -> Standing | None:
        """Say how the first ticket of a node that waits stands in the queue; None while none does."""
        with self._lock:
            heads = self._lines.heads()
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
        for _, line in self._lines.heads():
            shape = line.name[0]
            if left > 0 and not self.there.has_room(shape):
                count = min(line.count, -(-left // shape.count))
                found += [shape] * count
                left -= count * shape.count
        return found

    def _place(self, ticket: AnyTicket) -> Place:
        return ticket.place(self._chains.get(ticket.node, math.inf))

    def _hand_on(self) -> None:
        now = self.clock()
        lacking: list[Shape] = []
        reserved: list[Reservation] = []
        others: dict[Shape, list[First]] = {}
        heads = self._lines.firsts()
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
            goes = self._goes(place, now, reserved)
            if goes and shape not in others:
                following = self._lines.first(shape)
            else:  # a line whose first is in somebody's way: the other lines may have shorter ones
                if shape not in others:
                    seconds = self.there.latest(shape, reserved) - now
                    others[shape] = self._lines.beside(line, seconds, self.pace.at_least)
                elif goes and (head := self._lines.head(line)):
                    heapq.heappush(others[shape], (head, line))
                following = heapq.heappop(others[shape]) if others[shape] else None
            if following is not None:
                heapq.heappush(heads, (*following, shape))

    def _goes(self, place: Place, now: float, reserved: list[Reservation]) -> bool:
        """Give the ticket that waits there its turn, if that is in the way of nobody before it."""
        ticket = self._waiting[place]
        ends = now + self.pace.expected(ticket)
        machines = self.there.chosen(ticket.shape, ends, reserved)
        if machines is None:
            return False
        self._lines.leave(place)
        ticket.machines, ticket.began, ticket.counted, ticket.ends = machines, now, now, ends
        self._out[ticket] = None
        self.there.hold(ticket)
        for one in reserved:
            for machine in machines:
                one.take(machine, ticket.shape.asked, 1, ends)
        ticket.go(ticket)
        return True
