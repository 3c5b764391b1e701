"""While nothing of a node runs: new machines are looked for, and its progress says what it waits for."""

import time

from vitpipe.infra.ray.one_queue import OneQueue
from vitpipe.infra.ray.reasons import reason
from vitpipe.infra.waiting import Waiting
from vitpipe.infra.work import Job

TOLD_S = 5.0
"""The same reason is written again this often, for the time that is left."""


class Wait:
    """The waiting of one fan-out or gang."""

    def __init__(self, job: Job, queue: OneQueue) -> None:
        self._job, self._queue = job, queue
        self._told: Waiting | None = None
        self._told_at = 0.0

    def look(self, idle: bool = True) -> None:
        """Look for machines that have come or gone; while nothing of the node runs, say what it waits for."""
        self._queue.look()
        if idle:
            self.tell()

    def tell(self, *kinds: str) -> None:
        """Write what the node waits for, if it is one of these kinds; of all by default."""
        progress, standing = self._job.progress, self._queue.standing(self._job.node)
        if progress is None or standing is None:
            return
        told = self._told
        new = reason(standing, told.since if told and told.since else time.time())
        if kinds and new.what not in kinds:
            return
        same = told is not None and (told.what, told.place, told.behind) == (new.what, new.place, new.behind)
        if not same or time.monotonic() - self._told_at >= TOLD_S:
            self._told, self._told_at = new, time.monotonic()
            progress.waits(new)

    def over(self) -> bool:
        """Note that its turn has come; whether it was written that it waits, which its first process takes back."""
        waited, self._told = self._told is not None, None
        if waited and self._job.progress:
            self._job.progress.starts()
        return waited
