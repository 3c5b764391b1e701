"""What a cluster tells of a node's tasks and ranks, passed on as events; of ranks that are gone also as no progress.

Knows the kinds of events that end ranks, and neither tasks nor ranks themselves.
"""

from dataclasses import dataclass

from vitpipe.infra.progress import StoreProgress
from vitpipe.stages.contract import Events

ENDS_RANKS = ("rank_lost", "preempted", "resized")
"""Kinds after which the numbers of the ranks that reported last are none any more."""


@dataclass(frozen=True)
class ClusterEvents:
    """Satisfies `stages.contract.Events` for whatever watches a node's ranks. Picklable."""

    events: Events
    progress: StoreProgress

    def emit(self, kind: str, text: str) -> None:
        """Say one fact; where it ends ranks, `status` shows since when they restart instead of their last rate."""
        self.events.emit(kind, text)
        if kind in ENDS_RANKS:
            self.progress.lost(text)
