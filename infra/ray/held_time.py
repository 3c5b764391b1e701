"""How long cores and GPUs were held for each node: from a ticket's turn until it leaves. Knows no queue, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vitpipe.infra.ray.tickets import AnyTicket


@dataclass
class HeldTime:
    """Seconds of each resource by node, each machine's added up; what stands idle between tasks is not among them."""

    _seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, ticket: AnyTicket, now: float) -> None:
        """Count in what a ticket that has had its turn held since it was counted last."""
        bundles = len(ticket.machines) * (now - ticket.counted)
        ticket.counted = now
        of_node = self._seconds.setdefault(ticket.node, {})
        for name, amount in ticket.shape.asked:
            of_node[name] = of_node.get(name, 0.0) + amount * bundles

    def of(self, node: str) -> Mapping[str, float]:
        """Return the seconds of a node by resource, as Ray names them; empty where none of its tickets had a turn."""
        return dict(self._seconds.get(node, {}))
