"""The rule of the one queue, written as it is said: at each event all that wait are looked at, in their order."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

SLACK = 1e-6


def room(asked, free):
    return max(0, min((int((free.get(name, 0) + SLACK) // amount) for name, amount in asked), default=10**6))


def plus(free, asked, count):
    return {name: free.get(name, 0) + count * dict(asked).get(name, 0) for name in {*free, *dict(asked)}}


@dataclass
class PlainQueue:
    machines: Any
    clock: Any
    tickets: list = field(default_factory=list)
    out: list = field(default_factory=list)
    chains: dict = field(default_factory=dict)
    took: dict = field(default_factory=dict)
    paces: dict = field(default_factory=dict)
    has: dict = field(default_factory=dict)
    numbers: Any = field(default_factory=itertools.count)

    def join(self, tickets):
        for ticket in tickets:
            ticket.order = next(self.numbers) if ticket.order < 0 else ticket.order
            self.tickets.append(ticket)
        self.has = self.has or self.machines()
        self.hand_on()

    def leave(self, tickets, ended=False):
        for ticket in tickets:
            self.tickets = [other for other in self.tickets if other is not ticket]
            was_out, self.out = ticket in self.out, [other for other in self.out if other is not ticket]
            if was_out and ended:
                self.took.setdefault(ticket.node, []).append((ticket.seconds, self.clock() - ticket.began))
                self.expect_anew(ticket.node)
        self.hand_on()

    def expect_anew(self, node):
        """Those that run end as was measured of others, once that is another by a tenth."""
        took = self.took[node]
        told = [(estimate, seconds) for estimate, seconds in took if estimate]
        now = (sum(s for _, s in told) / sum(e for e, _ in told) if told else 1.0, max(s for _, s in took))
        before = self.paces.get(node, (1.0, -1.0))
        if any(max(pair) > 1.1 * min(pair) for pair in zip(before, now, strict=True)):
            self.paces[node] = now
            for ticket in self.out:
                if ticket.node == node:
                    ticket.ends = ticket.began + self.expected(ticket)

    def look(self):
        self.has = self.machines()
        self.hand_on()

    def rank(self, chains):
        self.chains = chains
        self.hand_on()

    def place(self, ticket):
        longest = -math.inf if ticket.seconds is None else -ticket.seconds
        return (not ticket.is_gang, -self.chains.get(ticket.node, math.inf), longest, ticket.order)

    def expected(self, ticket):
        took = self.took.get(ticket.node, [])
        if ticket.seconds is None:
            return max((seconds for _, seconds in took), default=math.inf)
        told = [(estimate, seconds) for estimate, seconds in took if estimate]
        ratio = sum(s for _, s in told) / sum(e for e, _ in told) if told else 1
        return ticket.seconds * ratio

    def free(self, name, at=None, ends=None):
        """What is free on a machine, or will be at a time by the ends that are taken for true."""
        found = dict(self.has[name])
        for ticket in self.out:
            if at is None or ends(ticket) > at:
                found = plus(found, ticket.shape.asked, -ticket.machines.count(name))
        return found

    def hand_on(self):
        now, reserved, asked_for, spoken = self.clock(), [], set(), set()
        for ticket in sorted(self.tickets, key=self.place):
            shape = ticket.shape
            if ticket.line in spoken:
                continue
            rooms = {name: room(shape.asked, self.free(name)) for name in self.has}
            if sum(rooms.values()) < shape.count:
                if shape not in asked_for and (held := self.reserve(shape, now, reserved)):
                    reserved.append(held)
                asked_for.add(shape)
                continue
            ends = now + self.expected(ticket)
            allowed = {name: self.allowed(name, rooms[name], shape.asked, ends, reserved) for name in rooms}
            machines = self.chosen(shape, allowed)
            if machines is None:
                spoken.add(ticket.line)
                continue
            self.tickets.remove(ticket)
            ticket.machines, ticket.began, ticket.ends = machines, now, ends
            self.out.append(ticket)
            for _, start, spare in reserved:
                for name in machines:
                    if name in spare and ends > start:
                        spare[name] = plus(spare[name], shape.asked, -1)
            ticket.go(ticket)

    def allowed(self, name, most, asked, ends, reserved):
        for _, start, spare in reserved:
            if name in spare and ends > start:
                most = min(most, room(asked, spare[name]))
        return max(0, most)

    def chosen(self, shape, rooms):
        names = [name for name in self.has if rooms[name]]
        if shape.count == 1:
            return (min(names, key=lambda name: self.left(name, shape)),) if names else None
        taken = ()
        names.sort(key=lambda name: -rooms[name])
        while names and len(taken) < shape.count:
            missing = shape.count - len(taken)
            enough = [name for name in names if rooms[name] >= missing]
            name = min(enough, key=rooms.get) if enough else names[0]
            names.remove(name)
            taken += (name,) * min(rooms[name], missing)
        return taken if len(taken) == shape.count else None

    def left(self, name, shape):
        free = self.free(name)
        gpus = 0 if "GPU" in shape.names else free.get("GPU", 0)
        return gpus, round(sum(free[one] - amount for one, amount in shape.asked), 6)

    def reserve(self, shape, now, before):
        if sum(room(shape.asked, sizes) for sizes in self.has.values()) < shape.count:
            return None
        comes = []
        for number, name in enumerate(self.has):
            most = self.allowed(name, shape.count, shape.asked, math.inf, before)
            there = sorted(
                (ticket for ticket in self.out if name in ticket.machines),
                key=lambda ticket: (ticket.ends_at_last(now), ticket.began, ticket.order),
            )
            for known in range(len(there) + 1):
                free = dict(self.has[name])
                for ticket in there[known:]:
                    free = plus(free, ticket.shape.asked, -ticket.machines.count(name))
                at = (there[known - 1].ends_at_last(now), there[known - 1].began) if known else (now, -math.inf)
                comes += [(*at, number, name, n) for n in range(min(most, max(0, room(shape.asked, free))))]
        taken, seen = {}, set()
        for _, _, _, name, n in sorted(comes, key=lambda come: come[:3]):
            if (name, n) not in seen and sum(taken.values()) < shape.count:
                seen.add((name, n))
                taken[name] = taken.get(name, 0) + 1
        if sum(taken.values()) < shape.count:
            return None

        def first(ticket):
            return now if ticket.ends <= now or math.isinf(ticket.ends) else ticket.ends

        times = sorted({now, *map(first, self.out)})
        start = max(
            next(at for at in times if room(shape.asked, self.free(name, at, first)) >= count)
            if room(shape.asked, self.free(name)) < count
            else now
            for name, count in taken.items()
        )
        spare = {name: plus(self.free(name, start, first), shape.asked, -count) for name, count in taken.items()}
        for _, _, others in before:
            for name in taken.keys() & others.keys():
                others[name] = plus(others[name], shape.asked, -taken[name])
        return taken, start, spare
