"""The driver's log of one node: `{attempt}/logs/driver.log`, written on local disk and copied up now and then.

Lines are told apart by the thread they come from; the thread of each node is bound to it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from vitpipe.infra.errors import LeaseLost, StorageError
from vitpipe.infra.logs import LogFile, formatter
from vitpipe.stages.contract import Out

PATH = "logs/driver.log"
EVERY_S = 10.0

log = logging.getLogger(__name__)


@contextmanager
def node_log(node: str, out: Out, folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Collect this thread's log lines for as long as the block lasts; nothing is uploaded once the lease is lost.

    `tell` is called at the end with how many lines the disk refused, if any.
    """
    path = folder / "driver.log"
    structlog.contextvars.bind_contextvars(node=node)
    handler = LogFile(path)
    handler.setFormatter(formatter())
    handler.addFilter(lambda record: structlog.contextvars.get_contextvars().get("node") == node)
    logging.getLogger().addHandler(handler)
    copier = _Copier(out, path)
    copier.start()
    lost = False
    try:
        yield
    except LeaseLost:
        lost = True
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        copier.stop(copy=not lost)
        if (dropped := handler.take_dropped()) and not lost:
            tell(dropped)
        structlog.contextvars.unbind_contextvars("node")


class _Copier(threading.Thread):
    def __init__(self, out: Out, path: Path) -> None:
        super().__init__(name="vitpipe-node-log", daemon=True)
        self._out, self._path, self._copied, self._end = out, path, 0, threading.Event()

    def run(self) -> None:
        while not self._end.wait(EVERY_S):
            self._copy()

    def stop(self, copy: bool) -> None:
        self._end.set()
        self.join()
        if copy:
            self._copy()

    def _copy(self) -> None:
        """Upload what is there, if it grew. The log is for people: a store that fails does not fail the node here."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return  # a driver that overtook us on this machine has cleared our scratch
        if len(data) > self._copied:
            try:
                self._out.put(PATH, data)
                self._copied = len(data)
            except StorageError as error:
                log.warning("the driver's log was not copied: %s", error)
