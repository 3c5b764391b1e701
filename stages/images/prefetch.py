"""Work done ahead by threads and returned in order. Knows nothing of images."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vitpipe.infra.at_once import answers

AHEAD, AHEAD_BYTES = 4, 512_000_000
"""At most so many batches are made ahead, and so many bytes."""
Item = TypeVar("Item")
Made = TypeVar("Made")


def most_ahead(batch_bytes: int) -> int:
    """Choose how many batches of that size to make ahead; at least one."""
    return max(1, min(AHEAD, AHEAD_BYTES // max(1, batch_bytes)))


def in_order(make: Callable[[Item], Made], items: Iterable[Item], threads: int, ahead: int) -> Iterator[Made]:
    """Yield `make(item)` in the order of the items, with up to `ahead` of them begun early.

    What a call raises is raised in its place. A consumer that stops early leaves no thread behind.
    """
    return answers(make, items, ahead + 1, threads, "vitpipe-images")
