"""What the ranks of a gang should hear of: machines that are taken away, room for more of them, and a cluster's end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import ray

from vitpipe.infra.ray.cluster_life import cluster_gone
from vitpipe.infra.ray.gang_notes import News, RankProcess
from vitpipe.infra.ray.gang_notices import LOOK_S, Notices
from vitpipe.infra.ray.gang_places import Places
from vitpipe.infra.ray.head import MISSES, ask_head, lost_cluster
from vitpipe.infra.work import Job


@dataclass
class Outlook:
    """What is ahead of one start of a gang."""

    job: Job
    asked: str
    """For messages: `run 2 ranks of backbone`."""
    room: Places
    ranks: Mapping[int, RankProcess]
    _notices: Notices = field(default_factory=Notices)
    _next: float = 0.0
    _misses: int = 0

    @property
    def reclaimed(self) -> frozenset[str]:
        """Ray's ids of the gang's machines that are to be taken away."""
        return self._notices.reclaimed

    def look(self) -> News:
        """Look around once in a while. Lost when the cluster is gone."""
        now = time.monotonic()
        if now < self._next:
            return self._notices.news
        self._next = now + LOOK_S
        if gone := cluster_gone():
            self._misses += 1
            if self._misses >= MISSES:
                self.room.is_lost = True
                raise lost_cluster(self.asked, gone)
            return self._notices.news
        self._misses = 0
        # Ray has no public door to what Ray Train itself reads here; Ray is bounded in pyproject.toml
        draining = ask_head("look which machines are taken away", ray._private.state.state.get_draining_nodes)
        added = 0 if self._notices.news.notice else self.room.added()
        if told := self._notices.hear(now, (place.node for place in self.ranks.values()), draining, added):
            self.job.tell("preempted", told)
        return self._notices.news
