"""Many small questions at once, answered in the order in which they were asked: a store far away answers sixteen as
fast as one. Knows nothing of what is asked.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Q = TypeVar("Q")

READERS = 16
"""Questions under way, or answered and not taken yet."""


def answers(ask: Callable[[Q], T], questions: Iterable[Q], at_once: int = READERS) -> Iterator[T]:
    """The answer to each question, in their order, as soon as it and all before it are there.

    The first error, in that order, is raised in its place; who stops listening waits for what is under way alone.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="vitpipe-ask") as pool:
        try:
            for question in questions:
                waiting.append(pool.submit(ask, question))
                if len(waiting) == at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def by_key(ask: Callable[[Q], T], keys: Iterable[Q]) -> dict[Q, T]:
    """The answer about each key."""
    listed = list(keys)
    return dict(zip(listed, answers(ask, listed), strict=True))
