"""All machines: where a ticket has room now, and what is reserved for one that has none. Knows no order of tickets."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vitpipe.infra.ray.machine import Asked, MachineRoom, bundles_in
from vitpipe.infra.ray.rooms import Rooms
from vitpipe.infra.ray.tickets import AnyTicket, Shape, Sizes


@dataclass
class Reservation:
    """What a ticket that waits will need: bundles on machines, and from when on."""

    machines: Mapping[str, int]
    """How many of its bundles on each."""
    start: float
    """When they may all be free: who ends before it is in nobody's way."""
    expected: float
    """When they will be by the estimates; infinite where one is missing."""
    spare: dict[str, dict[str, float]]
    """By machine: what is over at `start`, which others may keep for longer."""

    def room(self, machine: str, asked: Asked, ends: float) -> int | None:
        """Count the bundles that may be on a machine until `ends`; None for as many as are free."""
        if ends <= self.start or machine not in self.spare:
            return None
        return max(0, bundles_in(asked, self.spare[machine]))

    def take(self, machine: str, asked: Asked, count: int, ends: float = math.inf) -> None:
        """Count bundles in that are let in front."""
        if ends > self.start and machine in self.spare:
            spare = self.spare[machine]
            for name, amount in asked:
                spare[name] = spare.get(name, 0.0) - amount * count


@dataclass
class Machines:
    """The machines that are there, and which tickets hold what of them."""

    has: dict[str, Sizes] = field(default_factory=dict)
    """What each of them has."""
    _there: dict[str, MachineRoom] = field(default_factory=dict)
    _out: dict[AnyTicket, None] = field(default_factory=dict)
    _rooms: dict[Asked, Rooms] = field(default_factory=dict)

    def become(self, has: Mapping[str, Sizes]) -> None:
        """Take the machines that are there now; what tickets hold stays held where its machine is among them."""
        if has == self.has:
            return
        self.has = dict(has)
        self._there = {name: MachineRoom(name, number, dict(sizes)) for number, (name, sizes) in enumerate(has.items())}
        self._rooms.clear()
        for ticket in self._out:
            self._hold(ticket)

    def hold(self, ticket: AnyTicket) -> None:
        """Take what a ticket asks for from the machines that it names."""
        self._out[ticket] = None
        self._hold(ticket)

    def release(self, ticket: AnyTicket) -> None:
        """Give back what a ticket holds."""
        del self._out[ticket]
        for name in dict.fromkeys(ticket.machines):
            if name in self._there:
                self._there[name].release(ticket)
                self._changed(name)

    def nodes(self, names: frozenset[str]) -> list[str]:
        """List the nodes that hold any of these resources, who holds the most bundles first."""
        held: dict[str, int] = {}
        for ticket in self._out:
            if ticket.shape.names & names:
                held[ticket.node] = held.get(ticket.node, 0) + len(ticket.machines)
        return sorted(held, key=lambda node: -held[node])

    def free(self, name: str) -> Sizes:
        """What is free on a machine that is there."""
        return self._there[name].free

    def idle_room(self, asked: Asked) -> int:
        """Count how many bundles would have room on the machines that are there, were they idle."""
        return sum(bundles_in(asked, sizes) for sizes in self.has.values())

    def has_room(self, shape: Shape) -> bool:
        """Whether all bundles have room now, whoever else waits."""
        return self._room(shape.asked).total >= shape.count

    def chosen(self, shape: Shape, ends: float, reserved: list[Reservation]) -> tuple[str, ...] | None:
        """Choose a machine for each bundle that is in nobody's way; None where that is not possible.

        A task goes where the least is left, and to a GPU's machine last if it wants none, so that large bundles keep
        their room; a gang takes as few machines as it can.
        """
        asked, rooms = shape.asked, self._room(shape.asked)
        if shape.count > 1:
            allowed = ((name, _least(name, room, asked, ends, reserved)) for name, room in rooms.counts.items())
            found = sorted((-room, self._there[name].number, name) for name, room in allowed if room > 0)
            return _packed([(name, -room) for room, _, name in found], shape.count)
        name = rooms.tightest(lambda name: _least(name, 1, asked, ends, reserved) > 0)
        return None if name is None else (name,)

    def latest(self, shape: Shape, reserved: list[Reservation]) -> float:
        """Until when a task may stay where it is in the way the least: who ends later is in somebody's way.

        Infinite for a gang, -inf where there is no room.
        """
        if shape.count > 1:
            return math.inf
        best = -math.inf
        for name in self._room(shape.asked).counts:
            until = math.inf
            for one in reserved:
                if name in one.spare and one.start < until and bundles_in(shape.asked, one.spare[name]) < 1:
                    until = one.start
            best = max(best, until)
            if math.isinf(until):
                break
        return best

    def reserve(self, shape: Shape, now: float, before: list[Reservation]) -> Reservation | None:
        """Reserve what a ticket needs where it is free the earliest; None where it is not to be had.

        Of machines whose tasks end at times that nobody knows, those are taken whose tasks began the earliest: none
        that begins later keeps the ticket waiting.
        """
        if shape.count == 1:
            return self._reserve_one(shape.asked, now, before)
        asked, taken, left, expected = shape.asked, dict[str, int](), shape.count, now
        comings: list[tuple[float, float, int, str, int]] = []
        for name, machine in self._there.items():
            most = _least(name, shape.count, asked, math.inf, before)
            comings += [(at, began, machine.number, name, n) for at, began, n in machine.comings(asked, most, now)]
        for at, _, _, name, count in sorted(comings):
            taken[name] = taken.get(name, 0) + min(count, left)
            left -= min(count, left)
            expected = max(now, at)
            if not left:
                break
        if left:
            return None
        start = max(self._there[name].soonest(asked, count, now) for name, count in taken.items())
        spare = {name: self._there[name].spare(asked, count, start, now) for name, count in taken.items()}
        for one in before:
            for name, count in taken.items():
                one.take(name, asked, count)
        return Reservation(taken, start, expected, spare)

    def _reserve_one(self, asked: Asked, now: float, before: list[Reservation]) -> Reservation | None:
        found = self._room(asked).earliest(now, lambda name: _least(name, 1, asked, math.inf, before) > 0)
        if found is None:
            return None
        at, name = found
        start, spare = self._there[name].booking(asked, now)
        for one in before:
            one.take(name, asked, 1)
        return Reservation({name: 1}, start, max(now, at), {name: spare})

    def _hold(self, ticket: AnyTicket) -> None:
        names = ticket.machines
        for name, count in ((names[0], 1),) if len(names) == 1 else Counter(names).items():
            if name in self._there:
                self._there[name].hold(ticket, count)
                self._changed(name)

    def _changed(self, name: str) -> None:
        for rooms in self._rooms.values():
            rooms.changed(name)

    def _room(self, asked: Asked) -> Rooms:
        rooms = self._rooms.get(asked)
        if rooms is None:
            rooms = self._rooms[asked] = Rooms(asked, self._there)
        return rooms


def _least(name: str, room: int, asked: Asked, ends: float, reserved: list[Reservation]) -> int:
    """Count how many of `room` bundles may be on a machine until `ends`, whatever is reserved there."""
    for one in reserved:
        allowed = one.room(name, asked, ends)
        room = room if allowed is None else min(room, allowed)
    return room


def _packed(rooms: list[tuple[str, int]], count: int) -> tuple[str, ...] | None:
    """Deal bundles to as few machines as possible, the last to the smallest room that will do; the largest is first."""
    taken: list[str] = []
    while rooms and len(taken) < count:
        left = count - len(taken)
        enough = [room for room in rooms if room[1] >= left]
        name, most = room = min(enough, key=lambda room: room[1]) if enough else rooms[0]
        rooms.remove(room)
        taken += [name] * min(most, left)
    return tuple(taken) if len(taken) == count else None
