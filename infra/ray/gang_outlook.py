"""What the ranks of a gang should hear of: machines that are taken away, room for more of them, and a cluster's end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import ray

from vitpipe.infra.ray.cluster_life import cluster_gone
from vitpipe.infra.ray.gang_notes import News, RankProcess
from vitpipe.infra.ray.gang_places import Places
from vitpipe.infra.ray.head import MISSES, ask_head, lost_cluster
from vitpipe.infra.work import Job

LOOK_S = 5.0
GROW_S = 30.0
"""How long room for more ranks is left alone, so that several machines that come are used together."""


@dataclass
class Outlook:
    """What is ahead of one start of a gang."""

    job: Job
    asked: str
    """For messages: `run 2 ranks of backbone`."""
    room: Places
    ranks: Mapping[int, RankProcess]
    reclaimed: frozenset[str] = frozenset()
    """Ray's ids of the gang's machines that are to be taken away."""
    _news: News = field(default_factory=News)
    _next: float = 0.0
    _misses: int = 0
    _added_since: float | None = None

    def look(self) -> News:
        """Look around once in a while. Lost when the cluster is gone."""
        now = time.monotonic()
        if now < self._next:
            return self._news
        self._next = now + LOOK_S
        if gone := cluster_gone():
            self._misses += 1
            if self._misses >= MISSES:
                self.room.is_lost = True
                raise lost_cluster(self.asked, gone)
            return self._news
        self._misses = 0
        self._look_for_drains()
        if not self._news.notice:
            self._look_for_room(now)
        return self._news

    def _look_for_drains(self) -> None:
        # Ray has no public door to what Ray Train itself reads here; Ray is bounded in pyproject.toml
        draining = ask_head("look which machines are taken away", ray._private.state.state.get_draining_nodes)
        ours = {node: draining[node] for node in sorted({place.node for place in self.ranks.values()} & set(draining))}
        if ours and not self.reclaimed:
            ends = [deadline for deadline in ours.values() if deadline]
            until = f" by {time.strftime('%H:%M:%S', time.localtime(min(ends) / 1000))}" if ends else ""
            self._news = News(notice=f"preemption: {', '.join(ours)} will be taken away{until}")
            text = f"{', '.join(ours)} will be taken away{until}: the ranks commit and start again (not charged)"
            self.job.tell("preempted", text)
        self.reclaimed |= ours.keys()

    def _look_for_room(self, now: float) -> None:
        added = self.room.added()
        self._added_since = None if not added else self._added_since or now
        if self._added_since is not None and now - self._added_since >= GROW_S:
            self._news = News(notice=f"there is room for {added} more ranks")
