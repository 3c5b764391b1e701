"""A little room held on the disk of a `file://` run while it lasts, so that its end can be written on a full disk.

Other writers may be quicker to fill what is given back: this helps, and promises nothing.
"""

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitpipe.infra.storage.local import TEMPORARY, LocalStore
from vitpipe.infra.storage.store import Store

SPARE_BYTES = 256 * 2**10
"""Enough for the reason beside each failed attempt, the last events and the lease."""

log = logging.getLogger(__name__)


class SpareRoom:
    """Room on the store's disk kept by one driver for one run's last words. Safe to use from several threads."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def take(self) -> None:
        """Hold the room, where the disk has it."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, SPARE_BYTES)
        except OSError as error:
            log.warning("no room is held for the end of the run: %s", error)

    def give_back(self) -> bool:
        """Free the room; whether there was any."""
        with self._lock, suppress(OSError):
            if self._path is not None:
                self._path.unlink()
                return True
        return False


@contextmanager
def spare_room(run: Store) -> Iterator[SpareRoom]:
    """Hold room for as long as the block lasts; a killed driver's is swept with the store's other temporary files."""
    room = SpareRoom(run.root / f"{TEMPORARY}{secrets.token_hex(8)}" if isinstance(run, LocalStore) else None)
    room.take()
    try:
        yield room
    finally:
        room.give_back()
