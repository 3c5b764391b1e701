"""How urgent each node is: its time and that of the longest chain of nodes that waits for it.

By the plan's estimates, asked again once inputs are known, and by what was measured of nodes of the same stage. Knows
no queue.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vitpipe.infra.chains import longest_chains
from vitpipe.infra.errors import VitpipeError
from vitpipe.pipeline.drive.foresight import Foresight
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.store.records import Committed

log = logging.getLogger(__name__)

UNKNOWN_S = 60.0
"""Seconds that a node counts for at least while nobody can say how long it takes."""


@dataclass
class CriticalPath:
    """For one walk: seconds of each node that is due, and of the longest chain that begins with it."""

    graph: Graph
    plan: Plan
    foresight: Foresight
    pace: Callable[[str], float | None]
    """Measured over estimated seconds of what has ended of a node."""
    _known: dict[str, float] = field(default_factory=dict)

    def seconds(self, node: str, committed: Mapping[str, Committed]) -> float | None:
        """Estimate how long a node takes, as nodes of its stage did that have ended; None where nobody knows."""
        return self._seconds(committed, self._paces(committed))[node]

    def chains(self, committed: Mapping[str, Committed]) -> dict[str, float]:
        """Add up, by node that is due and not committed, the longest chain that begins with it.

        What is unknown counts as much as the longest that is known.
        """
        own = self._seconds(committed, self._paces(committed))
        unknown = max([UNKNOWN_S, *(seconds for seconds in own.values() if seconds is not None)])
        told = {node: own[node] for node in self.graph.nodes if node in own}
        seconds = {node: unknown if known is None else known for node, known in told.items()}
        return longest_chains(seconds, {node: self.graph.upstream(node) for node in seconds})

    def _seconds(self, committed: Mapping[str, Committed], paces: Mapping[str, float]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for one in self.plan.due:
            if one.node not in committed:
                seconds = 0.0 if one.adopts else self._asked(one.node, committed)
                found[one.node] = None if seconds is None else seconds * paces.get(one.stage, 1.0)
        return found

    def _asked(self, node: str, committed: Mapping[str, Committed]) -> float | None:
        """Ask for an estimate until there is one: what a stage cannot know before its inputs it may know later."""
        if node not in self._known:
            try:
                hours = self.foresight.estimate(node, committed).hours
            except VitpipeError as error:  # the stage says it in its turn
                log.debug("%s cannot be estimated: %s", node, error)
                hours = None
            if hours is None:
                return None
            self._known[node] = hours * 3600
        return self._known[node]

    def _paces(self, committed: Mapping[str, Committed]) -> dict[str, float]:
        """By stage: the mean pace of its nodes that have ended in this walk."""
        paces: dict[str, list[float]] = defaultdict(list)
        for one in self.plan.due:
            if one.node in committed and (pace := self.pace(one.node)):
                paces[one.stage].append(pace)
        return {stage: sum(found) / len(found) for stage, found in paces.items()}
