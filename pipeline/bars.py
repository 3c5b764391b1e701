"""Progress of a copy: a bar for a person, nothing for a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pipeline.terminal import is_terminal


@contextmanager
def transfer_bar(what: str, hidden: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Give the block a function that hears (bytes done, bytes in all, file just finished)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=hidden or not is_terminal()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, path: bar.update(task, completed=done, total=total)
