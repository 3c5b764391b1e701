"""Progress of a copy or a count: a bar for a person, nothing for a log."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress

from vitpipe.pipeline.cli.terminal import is_terminal

T = TypeVar("T")
_TASK = (progress.TextColumn("{task.description}"), progress.BarColumn())


@contextmanager
def transfer_bar(what: str, hidden: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Give the block a function to call with (bytes done, bytes in all, file just finished)."""
    columns = (progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*_TASK, *columns, disable=hidden or not is_terminal()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, path: bar.update(task, completed=done, total=total)


@contextmanager
def counting_bar(what: str, total: int, hidden: bool) -> Iterator[Callable[[Iterable[T]], Iterator[T]]]:
    """Give the block a function that yields what it is given, one by one, and counts it."""
    columns = (progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*_TASK, *columns, transient=True, disable=hidden or not is_terminal()) as bar:
        task = bar.add_task(what, total=total)

        def count(things: Iterable[T]) -> Iterator[T]:
            for thing in things:
                yield thing
                bar.advance(task)

        yield count
