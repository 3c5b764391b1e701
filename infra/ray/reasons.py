"""Why a ticket waits: what no machine has, who holds it, who goes before. Knows the queue's answers, and no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.infra.ray.machine import Asked, bundles_in
from vitpipe.infra.ray.tickets import Shape, Sizes
from vitpipe.infra.waiting import Waiting


@dataclass(frozen=True)
class Standing:
    """How a ticket that waits stands in the queue."""

    shape: Shape
    has: Mapping[str, Sizes]
    """What each machine has."""
    before: Mapping[str, int]
    """Tickets that go before and want what it wants, by node."""
    waiting: int
    """Tickets that wait in all."""
    holders: Sequence[str]
    """Nodes that hold what it wants."""
    seconds: float | None
    """Until its turn, by the estimates."""


def reason(standing: Standing, since: float) -> Waiting:
    """Say what a ticket waits for."""
    shape, asked = standing.shape, str(standing.shape)
    if missing := lack(shape.asked, shape.count, standing.has):
        return Waiting("missing", asked, missing, since=since)
    if not standing.before:
        return Waiting("busy", asked, behind=tuple(standing.holders), seconds=standing.seconds, since=since)
    return Waiting(
        "queue",
        asked,
        behind=tuple(standing.before),
        place=1 + sum(standing.before.values()),
        of=standing.waiting,
        seconds=standing.seconds,
        since=since,
    )


def lack(asked: Asked, count: int, has: Mapping[str, Sizes]) -> str:
    """Say what machines lack to hold so many bundles at once, were they idle; empty when they lack nothing."""
    rooms = [bundles_in(asked, sizes) for sizes in has.values()]
    if sum(rooms) >= count:
        return ""
    if any(rooms):
        machines = f"{len(rooms)} machines" if len(rooms) > 1 else "the only machine"
        return f"room for {sum(rooms)} on {machines}"
    short = [name for name, amount in asked if all(sizes.get(name, 0.0) < amount for sizes in has.values())]
    most = {name: max((sizes.get(name, 0.0) for sizes in has.values()), default=0.0) for name in short}
    if short and not any(most.values()):
        return f"no machine has a {' or a '.join(short)}"
    said = ", ".join(f"{most[name]:g} {name}" for name in short)
    return f"largest machine has {said}" if said else "no machine has all of it"
