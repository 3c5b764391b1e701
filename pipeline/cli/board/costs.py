"""What a run has taken so far: committed nodes by their records, all else by when its events say it began and ended.

Knows no store and no price of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from vitpipe.infra.events import Event
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.store.consumption import Consumption, counts, spent
from vitpipe.pipeline.store.records import Committed

BEGINS = ("started", "resumed", "adopted")
ENDS = ("committed", "failed", "preempted")


def so_far(
    graph: Graph,
    committed: Mapping[str, Committed],
    events: Iterable[Event],
    running: Iterable[str],
    price: float | None,
) -> Consumption:
    """Add up what nodes took, attempts that came to nothing and those that still run among them."""
    tries = _tries(events, set(running), datetime.now(UTC))
    counted = {node for node, found in committed.items() if counts(found.record)}
    known = (
        (None if node in counted else graph.nodes[node].resources.model_dump(), seconds)
        for node, seconds in tries
        if node in graph.nodes
    )
    return spent((found.record for found in committed.values()), price, known)


def _tries(events: Iterable[Event], running: set[str], now: datetime) -> Iterator[tuple[str, float]]:
    """Yield each attempt that committed nothing: its node, and how long it lasted."""
    begun: dict[tuple[str, int], datetime] = {}
    last: dict[tuple[str, int], datetime] = {}
    committed: set[tuple[str, int]] = set()
    newest = 0
    for event in events:
        try:
            at, key = datetime.fromisoformat(event.time), (event.node, event.fence)
        except ValueError:
            continue  # a damaged event
        newest = max(newest, event.fence)
        if not event.node:
            continue
        if event.kind in BEGINS:
            begun.setdefault(key, at)
        last[key] = at
        if event.kind == "committed":
            committed.add(key)
    for (node, fence), at in begun.items():
        if (node, fence) in committed:
            continue
        ended = now if node in running and fence == newest else last[node, fence]
        yield node, max(0.0, (ended - at).total_seconds())
