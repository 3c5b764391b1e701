"""All machines: where a ticket has room now, and what is reserved for one that has none. Knows no order of tickets."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vitpipe.infra.ray.machine import Asked, MachineRoom, bundles_in
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
    _open: dict[Asked, dict[str, None]] = field(default_factory=dict)
    """By bundle: machines that may have room for one. All others have none."""

    def become(self, has: Mapping[str, Sizes]) -> None:
        """Take the machines that are there now; what tickets hold stays held where its machine is among them."""
        if has == self.has:
            return
        self.has = dict(has)
        self._there = {name: MachineRoom(name, number, dict(sizes)) for number, (name, sizes) in enumerate(has.items())}
        self._open.clear()
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
                for may_have in self._open.values():
                    may_have[name] = None

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
        left = shape.count
        for _, count in self._rooms(shape.asked):
            left -= count
            if left <= 0:
                return True
        return False

    def chosen(self, shape: Shape, ends: float, reserved: list[Reservation]) -> tuple[str, ...] | None:
        """Choose a machine for each bundle that is in nobody's way; None where that is not possible.

        A task goes where the least is left, and to a GPU's machine last if it wants none, so that large bundles keep
        their room; a gang takes as few machines as it can.
        """
        asked = shape.asked
        found = ((machine, _least(machine.name, room, asked, ends, reserved)) for machine, room in self._rooms(asked))
        open_to = [(machine, room) for machine, room in found if room]
        if shape.count > 1:
            rooms = sorted((-room, machine.number, machine.name) for machine, room in open_to)
            return _packed([(name, -room) for room, _, name in rooms], shape.count)
        if not open_to:
            return None
        return (min(open_to, key=lambda one: _left(one[0], shape))[0].name if len(open_to) > 1 else open_to[0][0].name,)

    def reserve(self, shape: Shape, now: float, before: list[Reservation]) -> Reservation | None:
        """Reserve what a ticket needs where it is free the earliest; None where it is not to be had.

        Of machines whose tasks end at times that nobody knows, those are taken whose tasks began the earliest: none
        that begins later keeps the ticket waiting.
        """
        asked, taken, left, expected = shape.asked, dict[str, int](), shape.count, now
        comings: list[tuple[float, float, int, str, int]] = []
        for name, machine in self._there.items():
            most = _least(name, shape.count, asked, math.inf, before)
            comings += [(at, began, machine.number, name, n) for at, began, n in machine.comings(asked, most, now)]
        for at, _, _, name, count in sorted(comings) if left > 1 else [min(comings)] if comings else []:
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

    def _hold(self, ticket: AnyTicket) -> None:
        for name, count in Counter(ticket.machines).items():
            if name in self._there:
                self._there[name].hold(ticket, count)

    def _rooms(self, asked: Asked) -> Iterator[tuple[MachineRoom, int]]:
        """Yield the machines that have room for the bundle now, each with how many."""
        may_have = self._open.get(asked)
        if may_have is None:
            may_have = self._open[asked] = dict.fromkeys(self._there)
        full: list[str] = []
        try:
            for name in may_have:
                count = bundles_in(asked, self._there[name].free)
                if count > 0:
                    yield self._there[name], count
                else:
                    full.append(name)
        finally:
            for name in full:
                del may_have[name]


def _least(name: str, room: int, asked: Asked, ends: float, reserved: list[Reservation]) -> int:
    """Count how many of `room` bundles may be on a machine until `ends`, whatever is reserved there."""
    for one in reserved:
        allowed = one.room(name, asked, ends)
        room = room if allowed is None else min(room, allowed)
    return room


def _left(machine: MachineRoom, shape: Shape) -> tuple[float, float, int]:
    """What is left on a machine beside one bundle: GPUs that are not asked for, and of what is."""
    unused = 0.0 if "GPU" in shape.names else machine.free.get("GPU", 0.0)
    return (unused, round(sum(machine.free[one] - amount for one, amount in shape.asked), 6), machine.number)


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
