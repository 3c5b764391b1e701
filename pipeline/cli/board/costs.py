"""What a run has taken so far: committed nodes by their records, all else by when its events say it began and ended.

Knows no store and no price of its own.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from vitpipe.infra.events import Event
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.store.consumption import Consumption, Work, at_least, counts, spent
from vitpipe.pipeline.store.held import HELD, NOTHING, HeldSoFar, Tried
from vitpipe.pipeline.store.records import Committed

BEGINS = ("started", "resumed", "adopted")
ENDS = ("committed", "failed", "preempted")


@dataclass(frozen=True)
class Try:
    """An attempt that committed nothing, or not yet."""

    node: str
    fence: int
    seconds: float
    runs: bool


def so_far(
    graph: Graph,
    committed: Mapping[str, Committed],
    tries: Iterable[Try],
    held: Mapping[Tried, HeldSoFar],
    price: float | None,
) -> Consumption:
    """Add up what nodes took, attempts that came to nothing and those that still run among them.

    What these held is known where they left word of it, else they held what was asked for at least.
    """
    counted = {node: found.record.fingerprint for node, found in committed.items() if counts(found.record)}

    def work(one: Try) -> Work:
        said = held.get((one.node, one.fence), NOTHING)
        if said is NOTHING and one.node not in counted:
            return at_least(graph.nodes[one.node].resources.model_dump(), one.seconds)
        if said.fingerprint == counted.get(one.node, "none"):  # its record has it
            said = NOTHING
        return one.seconds, said.own.get(HELD["CPU"], 0.0), said.own.get(HELD["GPU"], 0.0)

    others = (work(one) for one in tries if one.node in graph.nodes)
    return spent((found.record for found in committed.values()), price, others)


def tries(events: Iterable[Event], running: Collection[str]) -> Iterator[Try]:
    """Yield each attempt that committed nothing, by when its events say it began and ended."""
    begun: dict[Tried, datetime] = {}
    last: dict[Tried, datetime] = {}
    committed: set[Tried] = set()
    newest, now = 0, datetime.now(UTC)
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
        if (node, fence) not in committed:
            runs = node in running and fence == newest
            ended = now if runs else last[node, fence]
            yield Try(node, fence, max(0.0, (ended - at).total_seconds()), runs)
