"""How far a running node is: `{node}/progress.json`, rewritten in the background by the process that knows.

Never part of a record; `status`, the terminal and the exporter read this one file.
"""

import atexit
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, VitpipeError
from vitpipe.infra.json_object import fields_of, parse_object
from vitpipe.infra.rewritten import Rewritten
from vitpipe.infra.storage.store import Store
from vitpipe.infra.waiting import Waiting

PROGRESS = "progress.json"
RESTARTING = "restarting.json"
"""What a driver leaves beside it when ranks are lost: which processes' numbers are none any more, and since when."""
EVERY_S = 2.0
"""Writes are at least this far apart; readers may count on 5 s."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreProgress:
    """Satisfies `stages.contract.Progress`. Picklable; the newest update wins, older unwritten ones are dropped."""

    node: Store
    """The node's folder."""
    attempt: str
    fence: int
    every_s: float = EVERY_S

    def begin(self) -> None:
        """Write at once that this attempt runs now. StorageError when the store refuses it."""
        fields = {"attempt": self.attempt, "fence": self.fence, "time": time.time(), "step": 0, "total": None}
        self.node.write(PROGRESS, json.dumps(fields).encode())
        _writer(self).begun = time.monotonic()

    def update(self, step: int, total: int, unit: str = "steps", **facts: Any) -> None:
        """Hand over the newest state. Does not wait: a thread writes it, the first and the last without delay."""
        _writer(self).offer(step, {"step": step, "total": total, "unit": unit, **facts})

    def flush(self) -> None:
        """Write the newest update of this process before returning; failing to is a warning in the log."""
        _writer(self).flush()

    def waits(self, waiting: Waiting) -> None:
        """Write, before returning, what the node waits for: by its driver, while nothing of the node runs."""
        _writer(self).waits(waiting)

    def starts(self) -> None:
        """Write that the node waits for a process to start, which says with `begun` that it did."""
        writer = _writer(self)
        writer.waits(Waiting("start", since=time.time()))
        writer.waiting = None

    def begun(self) -> None:
        """Take back, wherever the node's work begins, that it waits; what else its driver wrote stays."""
        try:
            fields = read_progress(self.node)
            if fields and fields.pop("waits", None) and _driver(fields["attempt"]) == _driver(self.attempt):
                self.node.write(PROGRESS, json.dumps(fields).encode())
        except VitpipeError as error:
            log.warning("that the node begins could not be written: %s", error)

    def lost(self, why: str) -> None:
        """Say that the ranks which reported last are gone: their numbers are none until the next attempt reports.

        Failing to is a warning in the log.
        """
        try:
            found = read_progress(self.node)
            if found is None or found["fence"] != self.fence or not found.get("ranks"):
                return  # none has reported: what is lost is a task, or had not begun
            fields = {"ranks": _processes(found), "fence": self.fence, "since": time.time(), "why": why}
            self.node.write(RESTARTING, json.dumps(fields).encode())
        except (StorageError, IntegrityError) as error:
            log.warning("that the ranks are restarting could not be written: %s", error)


@dataclass(frozen=True)
class Restarting:
    """Since when no rank of a node has run, by its driver's clock in seconds of the epoch, and why."""

    since: float
    why: str


class _Writer:
    """One per process and attempt."""

    def __init__(self, progress: StoreProgress) -> None:
        self._progress = progress
        self._file = Rewritten(progress.node, PROGRESS, progress.every_s)
        self.begun: float | None = None
        self.waiting: Waiting | None = None
        self._lock = threading.Lock()
        self._newest: dict[str, Any] = {"step": 0, "total": None}
        self._first: tuple[int, float] | None = None
        self._before: tuple[int, int] | None = None

    def offer(self, step: int, fields: dict[str, Any]) -> None:
        with self._lock:
            self._newest = {**fields, "eta_seconds": self._eta_seconds(step, int(fields["total"]))}
        self._file.offer(self._encoded, at_once=step >= fields["total"])

    def waits(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self._file.offer(self._encoded)
        self.flush()

    def flush(self) -> None:
        self._file.flush()

    def _encoded(self) -> bytes:
        head = {"attempt": self._progress.attempt, "fence": self._progress.fence, "time": time.time()}
        with self._lock:
            waits = {"waits": self.waiting.to_json()} if self.waiting is not None else {}
            return json.dumps({**head, **self._newest, **waits}, default=float).encode()

    def _eta_seconds(self, step: int, total: int) -> float | None:
        """Seconds to go at the mean pace of this process in this phase; None at its end, for who knows what follows."""
        now = time.monotonic()
        is_another_phase = self._before is not None and (step < self._before[0] or total != self._before[1])
        self._before = step, total
        if self._first is None:
            # the first task to end shows how long one takes, counted from the beginning of the attempt
            self._first = (0, self.begun) if step == 1 and self.begun is not None else (step, now)
        elif is_another_phase:
            self._first = step, now
        done, seconds = step - self._first[0], now - self._first[1]
        return round((total - step) * seconds / done, 1) if done and step < total else None


def read_progress(node: Store) -> dict[str, Any] | None:
    """Read a node's newest progress, or None. Callers compare its `fence` with the lease's.

    IntegrityError for a file that vitpipe did not write; whoever runs the node soon writes it anew.
    """
    try:
        fields = parse_object(node.read(PROGRESS))
    except NotFound:
        return None
    except ValueError as error:
        raise _damaged(node, repr(error)) from error
    for name, kind in _KINDS.items():
        if not isinstance(fields.get(name), kind):
            raise _damaged(node, f"{name} is missing or of another type")
    if not all(isinstance(rank, dict) and "rank" in rank for rank in fields.get("ranks") or ()):
        raise _damaged(node, "ranks are not as they should be")
    return fields


def read_restarting(node: Store, progress: Mapping[str, Any]) -> Restarting | None:
    """Read since when the ranks that this progress is of are lost; None once others have reported.

    IntegrityError for a file that vitpipe did not write.
    """
    with suppress(NotFound), fields_of(f"{node.uri}/{RESTARTING}", "run the same command again"):
        fields = parse_object(node.read(RESTARTING))
        same = (fields["ranks"], fields["fence"]) == (_processes(progress), progress["fence"])
        return Restarting(float(fields["since"]), str(fields["why"])) if same else None
    return None


def _processes(progress: Mapping[str, Any]) -> list[list[Any]]:
    """Which processes reported: those of a gang's next start are others."""
    return [[rank.get("host"), rank.get("pid")] for rank in progress.get("ranks") or ()]


_KINDS = {
    "attempt": str, "fence": int, "step": int | None, "total": int | None, "ranks": list | None, "metrics": dict | None,
    "committed_step": int | None,
}  # fmt: skip


def _damaged(node: Store, why: str) -> IntegrityError:
    return IntegrityError(f"read {node.uri}/{PROGRESS}", f"it is damaged: {why}", "run the same command again")


_lock = threading.Lock()
_writers: dict[tuple[str, str], _Writer] = {}


def _writer(progress: StoreProgress) -> _Writer:
    with _lock:
        return _writers.setdefault((progress.node.uri, progress.attempt), _Writer(progress))


def _driver(attempt: str) -> str:
    """The driver's attempt, of which a gang's restarts are `a1.2`."""
    return attempt.partition(".")[0]


def _forget() -> None:
    """A forked child writes nothing on behalf of its parent."""
    global _lock
    _lock = threading.Lock()
    _writers.clear()


@atexit.register
def _flush_all() -> None:
    for writer in list(_writers.values()):
        writer.flush()


os.register_at_fork(after_in_child=_forget)
