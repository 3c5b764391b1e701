"""Ask many small questions at once and take the answers in order: a distant store answers sixteen as fast as one.

Knows nothing of what is asked.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Q = TypeVar("Q")

READERS = 16
"""Questions in flight, or answered and not consumed yet."""


def answers(
    ask: Callable[[Q], T], questions: Iterable[Q], at_once: int = READERS, threads: int = 0, name: str = "vitpipe-ask"
) -> Iterator[T]:
    """Yield the answer to each question, in order, as soon as it and all before it are there.

    `threads` of that name ask, as many as questions `at_once` unless it is given.
    The first error, in that order, is raised in its place. A caller that stops iterating waits only for questions in
    flight.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads or at_once, thread_name_prefix=name) as pool:
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
    """Ask about each key; the answers by key."""
    listed = list(keys)
    return dict(zip(listed, answers(ask, listed), strict=True))
