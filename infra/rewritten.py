"""A small object in the store that one process rewrites in the background, the newest content alone.

Whoever offers content never waits and hears of no error: a store that is down costs freshness and nothing else.
Knows no content.
"""

import logging
import threading
import time
from collections.abc import Callable

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.store import Store

IDLE_ROUNDS = 30
"""A writer that had nothing to write for so many rounds ends its thread."""

log = logging.getLogger(__name__)


class Rewritten:
    """One object and its writer; used by one process. Writes are at least `every_s` apart, the first is made at once.

    A forked child writes nothing: the thread is its parent's.
    """

    def __init__(self, store: Store, path: str, every_s: float) -> None:
        self._store, self._path, self._every_s = store, path, every_s
        self._wake, self._settled = threading.Event(), threading.Event()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._make: Callable[[], bytes] | None = None
        self._written = -every_s
        self._thread: threading.Thread | None = None

    def offer(self, make: Callable[[], bytes], *, at_once: bool = False) -> None:
        """Hand over what makes the newest content; it is called in the thread, unless another is offered before."""
        with self._lock:
            self._make = make
            self._settled.clear()
            if at_once or self._thread is None or time.monotonic() - self._written >= self._every_s:
                self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"vitpipe-{self._path}", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what is offered before returning; failing to is a warning in the log."""
        with self._writing:
            with self._lock:
                make, self._make = self._make, None
            if make is not None:
                self._write(make)
            if self._make is None:
                self._settled.set()

    def settle(self, wait_s: float) -> None:
        """Wait until what is offered is written, but no longer than that."""
        if self._thread is not None:  # else nothing was offered
            self._wake.set()
            self._settled.wait(wait_s)

    def _run(self) -> None:
        idle_rounds = 0
        while idle_rounds < IDLE_ROUNDS:
            self._wake.wait(self._every_s)
            self._wake.clear()
            idle_rounds = idle_rounds + 1 if self._make is None else 0
            self.flush()
        with self._lock:
            self._thread = None  # the next offer starts another; one handed over meanwhile waits for that or `flush`

    def _write(self, make: Callable[[], bytes]) -> None:
        try:
            self._store.write(self._path, make())
        except StorageError as error:
            log.warning("%s could not be written, the next time it will be: %s", self._path, error)
        self._written = time.monotonic()
