"""Work done ahead by threads and returned in order. Knows nothing of images."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from vitpipe.infra.at_once import answers

AHEAD, AHEAD_BYTES = 4, 512_000_000
"""Batches made ahead where that keeps all threads busy, and the most bytes of more than one."""
TURNS = 2
"""Parts made ahead for each thread."""
BEGINNERS = 4
"""Threads that begin batches: they wait for a store more than they work."""
Item = TypeVar("Item")
Made = TypeVar("Made")
Other = TypeVar("Other")


@dataclass(frozen=True)
class InParts(Generic[Made]):
    """A batch that was begun: its parts may be made by any threads in any order, and after the last it is done."""

    parts: Sequence[Callable[[], None]]
    done: Callable[[], Made]

    def made(self) -> Made:
        """Make it in this thread."""
        for part in self.parts:
            part()
        return self.done()

    def then(self, more: Callable[[Made], Other]) -> "InParts[Other]":
        """The same batch, of which something more is made once it is done."""
        return InParts(self.parts, lambda: more(self.done()))


@dataclass
class _Making(Generic[Made]):
    """A batch that some threads are at."""

    future: "Future[Made]" = field(default_factory=Future)
    left: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, begun: Callable[[], InParts[Made]], hands: ThreadPoolExecutor) -> None:
        """Begin it, unless nobody wants it any more, and give its parts to the threads."""
        if self.future.cancelled():
            return
        try:
            batch = begun()
        except BaseException as error:
            self._fails(error)
            return
        parts = batch.parts or [_nothing]
        self.left = len(parts)
        for part in parts:
            hands.submit(self._makes, part, batch.done)

    def _makes(self, part: Callable[[], None], done: Callable[[], Made]) -> None:
        if self.future.done():  # another part failed, or nobody wants it any more
            return
        try:
            part()
            with self.lock:
                self.left -= 1
                last = self.left == 0
            if last:
                made = done()
                if self.future.set_running_or_notify_cancel():
                    self.future.set_result(made)
        except BaseException as error:
            self._fails(error)

    def _fails(self, error: BaseException) -> None:
        with self.lock:
            if not self.future.done() and self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)


def _nothing() -> None:
    """The only part of a batch that has none."""


def most_ahead(batch_bytes: int, parts: int = 1, threads: int = 1) -> int:
    """Choose how many batches of that size, in so many parts each, to make ahead for so many threads; at least one."""
    wanted = max(AHEAD, -(-TURNS * threads // parts))
    return max(1, min(wanted, AHEAD_BYTES // max(1, batch_bytes)))


def in_parts(begin: Callable[[Item], InParts[Made]], items: Iterable[Item], threads: int, ahead: int) -> Iterator[Made]:
    """Yield the batch of each item in order; all threads work at the parts of the next, up to `ahead` further ones.

    What is raised for a batch is raised in its place. A consumer that stops early leaves no thread behind.
    """
    waiting: deque[Future[Made]] = deque()
    hands = ThreadPoolExecutor(threads, thread_name_prefix="vitpipe-images")
    beginners = ThreadPoolExecutor(min(BEGINNERS, ahead + 1), thread_name_prefix="vitpipe-images-next")
    with hands, beginners:
        try:
            for item in items:
                making = _Making[Made]()
                waiting.append(making.future)
                beginners.submit(making.begin, partial(begin, item), hands)
                if len(waiting) == ahead + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def in_order(make: Callable[[Item], Made], items: Iterable[Item], threads: int, ahead: int) -> Iterator[Made]:
    """Yield `make(item)` in the order of the items, with up to `ahead` of them begun early.

    Errors, and a consumer that stops early, as with `in_parts`.
    """
    return answers(make, items, ahead + 1, threads, "vitpipe-images")
