"""For one bundle: which machines have room for it now, and which will the earliest. Looks anew where something changed.

Knows no order of tickets and no reservations.
"""

import heapq
from collections.abc import Callable, Mapping

from vitpipe.infra.ray.machine import Asked, MachineRoom, bundles_in

_MANY = 4
"""Heaps are made anew when they hold so many entries a machine."""

Room = tuple[float, float, int, int, str]
"""What is left beside the bundle: GPUs that it does not ask for, and of what it asks for. The machine's number, state
and name."""
Soon = tuple[float, float, int, int, float, str]
"""When there is room, when the last began that then ends; number and state; until when this is true; the name."""


class Rooms:
    """The machines, seen from a bundle."""

    def __init__(self, asked: Asked, there: Mapping[str, MachineRoom]) -> None:
        self._asked, self._there = asked, there
        self._wants_gpu = any(name == "GPU" for name, _ in asked)
        self._counts: dict[str, int] = {}
        self._total = 0
        self._moved, self._stirred = set(there), set(there)
        """Machines that have changed since they were looked at: for what is free now, for what will be."""
        self._tight: list[Room] = []
        self._soon: list[Soon] = []

    def changed(self, name: str) -> None:
        """Hear that a machine holds more or less."""
        self._moved.add(name)
        self._stirred.add(name)

    @property
    def total(self) -> int:
        """How many bundles have room now."""
        self._look()
        return self._total

    @property
    def counts(self) -> Mapping[str, int]:
        """How many have room on each machine that has room for one."""
        self._look()
        return self._counts

    def tightest(self, is_allowed: Callable[[str], bool]) -> str | None:
        """Find the machine with room on which the least is left; None where none is allowed."""
        self._look()
        heap, aside, found = self._tight, list[Room](), None
        while heap:
            entry = heap[0]
            if self._there[entry[4]].version != entry[3]:
                heapq.heappop(heap)
            elif is_allowed(entry[4]):
                found = entry[4]
                break
            else:
                aside.append(heapq.heappop(heap))
        for entry in aside:
            heapq.heappush(heap, entry)
        return found

    def earliest(self, now: float, is_allowed: Callable[[str], bool]) -> tuple[float, str] | None:
        """Find where a bundle has room the earliest, and when; None where it never has."""
        heap, aside, found = self._soon, list[Soon](), None
        while self._stirred:
            self._await(self._stirred.pop(), now)
        while heap:
            entry = heap[0]
            if self._there[entry[5]].version != entry[3]:
                heapq.heappop(heap)
            elif now >= entry[4]:  # something runs longer than it was to: it is later, never earlier
                heapq.heappop(heap)
                self._await(entry[5], now)
            elif is_allowed(entry[5]):
                found = entry[0], entry[5]
                break
            else:
                aside.append(heapq.heappop(heap))
        for entry in aside:
            heapq.heappush(heap, entry)
        return found

    def _look(self) -> None:
        while self._moved:
            name = self._moved.pop()
            machine = self._there[name]
            count = bundles_in(self._asked, machine.free)
            self._total -= self._counts.pop(name, 0)
            if count > 0:
                self._total += count
                self._counts[name] = count
                heapq.heappush(self._tight, self._left(machine))
        if len(self._tight) > _MANY * (len(self._there) + _MANY):
            self._tight = [self._left(self._there[name]) for name in self._counts]
            heapq.heapify(self._tight)

    def _left(self, machine: MachineRoom) -> Room:
        free = machine.free
        rest = 0.0
        for name, amount in self._asked:
            rest += free[name] - amount
        return (
            0.0 if self._wants_gpu else free.get("GPU", 0.0),
            round(rest, 6),
            machine.number,
            machine.version,
            machine.name,
        )

    def _await(self, name: str, now: float) -> None:
        machine = self._there[name]
        first = machine.first(self._asked, now)
        if first is not None:
            at, began, until = first
            heapq.heappush(self._soon, (at, began, machine.number, machine.version, until, name))
        if len(self._soon) > _MANY * (len(self._there) + _MANY):
            self._soon = [one for one in self._soon if self._there[one[5]].version == one[3]]
            heapq.heapify(self._soon)
