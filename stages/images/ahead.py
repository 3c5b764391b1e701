"""Shards before they are needed: an order is known, so what a reader comes to next is known too. No torch."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from vitpipe.infra.errors import VitpipeError
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import BLOCK, Order, Window

FETCHERS = 8
"""Shards that are fetched at a time."""
LOOKED_AT = 64
"""Micro-batches whose windows are looked up together."""
PAUSE_S = 30.0
"""With no room for a shard, the next is tried after so long."""
_REMEMBERED = 20_000
"""Windows that are known to have been looked up."""
Ranges: TypeAlias = Sequence[tuple[int, int]]
log = logging.getLogger(__name__)


class ShardsAhead:
    """Threads that fetch the shards of one reader's coming windows, until it is closed.

    They go a turn of the windows further than the reader is, and no further than there is room. What a fetch raises is
    left for the reader to meet, which fetches such a shard itself.
    """

    def __init__(self, order: Order | Mixture, ranges: Ranges, fetch: Callable[[int], bool]) -> None:
        """`ranges` are (start, count) of what is read, ascending; `fetch` says whether there was room for a shard."""
        self._order, self._ranges, self._fetch = order, ranges, fetch
        self._looked_at, self._at = 0, ranges[0][0] if ranges else 0
        self._seen: dict[Window, None] = {}
        self._next: deque[tuple[int, int]] = deque()
        """Shards to fetch, each with a position from which on a turn needs it."""
        self._awaited: set[int] = set()
        self._until = 0.0
        self._closed = False
        self._moved = threading.Condition()
        self._look()  # so that the first batch is not made before it is known what is on its way
        for number in range(FETCHERS):  # that a fetch is under way holds back nobody who stops
            threading.Thread(target=self._run, name=f"vitpipe-ahead-{number}", daemon=True).start()

    def reached(self, position: int) -> None:
        """Go on: the reader has come to this position."""
        with self._moved:
            if position > self._at:
                self._at = position
                self._moved.notify_all()

    def awaits(self, shard: int) -> bool:
        """Whether a shard is on its way, or will be without anybody's doing."""
        return shard in self._awaited

    def close(self) -> None:
        """End the threads, each when what it fetches is there; waits for none."""
        with self._moved:
            self._closed = True
            self._awaited.clear()
            self._moved.notify_all()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            shard, has_room = taken[0], True
            try:
                has_room = self._fetch(shard)
            except VitpipeError as error:
                log.info(f"a shard was not fetched ahead: {error}")
            finally:
                with self._moved:
                    self._awaited.discard(shard)
                    if not has_room:
                        self._until = time.monotonic() + PAUSE_S
                        self._next.appendleft(taken)

    def _take(self) -> tuple[int, int] | None:
        """The next shard to fetch, waited for, those that the reader has left behind passed over; None at the end."""
        with self._moved:
            while not self._closed:
                pause = self._until - time.monotonic()
                if pause > 0:
                    self._awaited.clear()  # the reader does without them
                    self._moved.wait(pause)
                elif self._next:
                    taken = self._next.popleft()
                    if taken[1] + self._order.turn > self._at:
                        self._awaited.add(taken[0])
                        return taken
                    self._awaited.discard(taken[0])
                elif self._looked_at >= len(self._ranges):
                    return None
                elif not self._look():
                    self._moved.wait()
        return None

    def _look(self) -> bool:
        """Look up the windows of some more micro-batches; returns whether any was near enough."""
        coming = self._ranges[self._looked_at : self._looked_at + LOOKED_AT]
        near = [pair for pair in coming if pair[0] < self._at + self._order.turn]
        if not near:
            return False
        self._looked_at += len(near)
        ends = [np.r_[start : start + count : BLOCK, start + count - 1] for start, count in near]
        for window in self._order.windows_at(np.concatenate(ends)):
            if window not in self._seen:
                self._seen[window] = None
                for shard in self._order.shards_of(window).tolist():
                    if shard not in self._awaited:
                        self._awaited.add(shard)
                        self._next.append((shard, near[-1][0]))
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True
