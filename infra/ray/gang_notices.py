"""When ranks are told to commit and start again: a machine of theirs is taken away, or there is room for more of them.

Knows no Ray and no clock of its own, so that a simulation may drive it.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vitpipe.infra.ray.gang_notes import News

LOOK_S = 5.0
"""How often a driver looks around."""
GROW_S = 30.0
"""How long room for more ranks is left alone, so that several machines that come are used together."""


@dataclass
class Notices:
    """What the ranks of one start are told."""

    news: News = field(default_factory=News)
    reclaimed: frozenset[str] = frozenset()
    """The gang's machines that are to be taken away."""
    _added_since: float | None = None

    def hear(self, now: float, ours: Iterable[str], draining: Mapping[str, float], added: int) -> str | None:
        """Take in what a look has found; what is to be told of machines that go, where that is new.

        `ours` are the gang's machines, `draining` those that will be taken away, each with the Unix time in ms or 0;
        `added` ranks more have room.
        """
        told = self._drains({node: draining[node] for node in sorted(set(ours) & draining.keys())})
        if not self.news.notice:
            self._added_since = None if not added else now if self._added_since is None else self._added_since
            if self._added_since is not None and now - self._added_since >= GROW_S:
                self.news = News(notice=f"there is room for {added} more ranks")
        return told

    def _drains(self, ours: Mapping[str, float]) -> str | None:
        before, self.reclaimed = self.reclaimed, self.reclaimed | ours.keys()
        if not ours or before:
            return None
        ends = [deadline for deadline in ours.values() if deadline]
        until = f" by {time.strftime('%H:%M:%S', time.localtime(min(ends) / 1000))}" if ends else ""
        self.news = News(notice=f"preemption: {', '.join(ours)} will be taken away{until}")
        return f"{', '.join(ours)} will be taken away{until}: the ranks commit and start again (not charged)"
