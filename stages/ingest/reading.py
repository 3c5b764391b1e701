"""Reading many images in order: one by one where that is quick, a few at once where each read waits. No torch."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from vitpipe.infra.at_once import answers
from vitpipe.stages.images.header import BadImage, tried

T = TypeVar("T")


class UnreadableImage(BadImage):
    """An image whose bytes could not be had: nothing is known of them."""


REMOTE_READS = 8
"""Reads at once where each one is a request to a server."""


def one_by_one(read: Callable[[T], bytes], items: Iterable[T]) -> Iterator[bytes | BadImage]:
    """`read` of each item; a BadImage is given, not raised."""
    return (tried(read, item) for item in items)


def ahead(read: Callable[[T], bytes], items: Iterable[T], at_once: int = REMOTE_READS) -> Iterator[bytes | BadImage]:
    """As `one_by_one`, in the same order, with up to `at_once` reads under way or waiting to be taken."""
    return answers(partial(tried, read), items, at_once)
