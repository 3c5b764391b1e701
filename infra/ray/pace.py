"""How long tickets will take: by their estimates, corrected by what was measured of the same node. Knows no queue."""

import math
from dataclasses import dataclass, field

from vitpipe.infra.ray.tickets import AnyTicket, LineName, shortest_of

_MOVED = 1.1
_SHORTEST: dict[int, float] = {}
"""What `shortest_of` has said."""


@dataclass
class _Measured:
    """What the tickets of one node took that have ended."""

    seconds: float = 0.0
    """Of those that had an estimate."""
    estimated: float = 0.0
    longest: float | None = None
    """The longest of all."""
    told: tuple[float, float] = (1.0, -1.0)
    """Pace and longest when `has_moved` last said so; below 0 while there is none."""


@dataclass
class Pace:
    """Seconds of tickets that are still to come, node by node."""

    _nodes: dict[str, _Measured] = field(default_factory=dict)

    def measured(self, ticket: AnyTicket, seconds: float) -> None:
        """Learn from one that has ended how long others of its node take."""
        one = self._nodes.setdefault(ticket.node, _Measured())
        one.longest = seconds if one.longest is None else max(one.longest, seconds)
        if ticket.seconds:
            one.seconds += seconds
            one.estimated += ticket.seconds

    def of(self, node: str) -> float | None:
        """Divide the measured by the estimated seconds of a node's tickets; None while none has ended."""
        one = self._nodes.get(node)
        return one.seconds / one.estimated if one and one.estimated else None

    def has_moved(self, node: str) -> bool:
        """Whether what a node's tickets are expected to take is another by a tenth since this last said so."""
        one = self._nodes[node]
        (pace, longest), (new_pace, new_longest) = one.told, (self.of(node), one.longest or 0.0)
        new_pace = 1.0 if new_pace is None else new_pace
        if max(pace, new_pace) <= _MOVED * min(pace, new_pace) and (
            max(longest, new_longest) <= _MOVED * min(longest, new_longest)
        ):
            return False
        one.told = (new_pace, new_longest)
        return True

    def at_least(self, line: LineName) -> float:
        """Seconds that each ticket of a line takes or more, by what is expected of it now."""
        _, node, grain = line
        one = self._nodes.get(node)
        if grain is None:
            return math.inf if one is None or one.longest is None else one.longest
        shortest = _SHORTEST.get(grain)
        if shortest is None:
            shortest = _SHORTEST[grain] = shortest_of(grain)
        return shortest * (one.seconds / one.estimated) if one and one.estimated else shortest

    def expected(self, ticket: AnyTicket) -> float:
        """Seconds that it will take: its estimate times what those before it took of theirs.

        Without an estimate the longest so far of its node; infinite while there is none.
        """
        if ticket.seconds is None:
            one = self._nodes.get(ticket.node)
            return math.inf if one is None or one.longest is None else one.longest
        pace = self.of(ticket.node)
        return ticket.seconds * (1.0 if pace is None else pace)
