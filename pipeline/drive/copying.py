"""Keep the copies of a run's records fresh while a driver holds it, so that whoever looks asks little of the store.

A killed driver leaves them behind by some seconds, which costs a reader a request for each record that is newer.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.copies import renew_copies

EVERY_S = 15.0
"""Copies are renewed at most this often while nodes commit, and once more at the end."""

log = logging.getLogger(__name__)


class RecordCopies:
    """The copies of one run, renewed in the background once somebody said that there are new records."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._changed, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="vitpipe-copies", daemon=True)

    def changed(self) -> None:
        """Say that a record was committed."""
        self._changed.set()

    def start(self) -> None:
        """Begin to look after them."""
        self._thread.start()

    def close(self) -> None:
        """Renew them a last time where that is needed."""
        self._end.set()
        self._thread.join()
        self._renew()

    def _keep(self) -> None:
        while not self._end.wait(EVERY_S):
            self._renew()

    def _renew(self) -> None:
        if not self._changed.is_set():
            return
        self._changed.clear()
        try:
            renew_copies(self._run)
        except VitpipeError as error:
            log.warning("the copies of the records were not renewed, who looks reads the records: %s", error)


@contextmanager
def copying(run: Store) -> Iterator[RecordCopies]:
    """Look after a run's copies for as long as the block lasts."""
    copies = RecordCopies(run)
    copies.start()
    try:
        yield copies
    finally:
        copies.close()
