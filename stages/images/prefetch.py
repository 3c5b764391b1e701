"""Work done ahead by threads, handed over in order. Knows nothing of images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD, AHEAD_BYTES = 4, 512_000_000
"""Batches made ahead, at most, and their bytes together."""
Job = TypeVar("Job")
Made = TypeVar("Made")


def most_ahead(batch_bytes: int) -> int:
    """How many batches of that size to make ahead; one at least."""
    return max(1, min(AHEAD, AHEAD_BYTES // max(1, batch_bytes)))


def in_order(make: Callable[[Job], Made], jobs: Iterable[Job], threads: int, ahead: int) -> Iterator[Made]:
    """`make` of each job, in their order, up to `ahead` of them begun before they are asked for.

    What a job raises is raised in its place. Who stops asking leaves no thread behind.
    """
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vitpipe-images")
    try:
        for job in jobs:
            waiting.append(pool.submit(make, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
