"""Write the events of a process: all of one driver's time into one growing object, so that readers ask for few.

An event is in the store when `put` returns; of kinds that repeat, the first few of ten minutes are, and how many more
there were. A killed process loses that number alone. Knows of kinds only which may repeat.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from vitpipe.infra.storage.store import Store

FOLDER = "events/"
BATCH_BYTES = 64 * 2**10
"""An object of this size is left, and another begun: each event writes its object anew."""
KEPT_BYTES = 2**20
"""What is kept of events that a store does not take; then the oldest go."""
LIMITS: Mapping[str, int] = {"straggler": 3, "loss_spike": 3, "step_skipped": 10, "checkpoint_failed": 10}
"""Events of a kind and node that a process writes in each window; the rest is counted."""
WINDOW_S = 600.0

log = logging.getLogger(__name__)


@dataclass
class _Window:
    """What came of one kind and node since a moment."""

    began: float
    written: int = 0
    more: int = 0
    last: str = ""


@dataclass
class BatchWriter:
    """The events that one process writes under one fence of a run. Safe to use from several threads."""

    run: Store
    _lines: list[bytes] = field(default_factory=list)
    _name: str = ""
    _numbers: dict[str, int] = field(default_factory=dict)
    """By name of an event that the store does not have yet: how many had come with it."""
    _count: int = 0
    _saved: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _windows: dict[tuple[str, str], _Window] = field(default_factory=dict)

    def put(self, name: str, fields: Mapping[str, object]) -> None:
        """Write an event, with all that the store did not take before. A second time for one name is a second try.

        StorageError; it is then kept, and goes with the next.
        """
        with self._lock:
            if name not in self._numbers:
                self._lines.append(json.dumps({**fields, "name": name}).encode())
                self._count += 1
                self._numbers[name] = self._count
                self._name = self._name or f"{name}.jsonl"
                self._bound()
            number = self._numbers[name]
        with self._writing:
            with self._lock:
                lines, where, count = tuple(self._lines), self._name, self._count
                if self._saved >= number:
                    return  # another thread wrote it with its own
            self.run.write(FOLDER + where, b"\n".join(lines) + b"\n")
            with self._lock:
                self._saved = count
                self._numbers = {name: one for name, one in self._numbers.items() if one > count}
                if sum(map(len, lines)) >= BATCH_BYTES:
                    self._lines = self._lines[len(lines) :]
                    self._name = f"{next(iter(self._numbers))}.jsonl" if self._lines else ""

    def _bound(self) -> None:
        while sum(map(len, self._lines)) > KEPT_BYTES:
            log.warning("an event is lost, the store took none for long: %s", self._lines.pop(0).decode())

    def admit(self, node: str, kind: str, text: str) -> str | None:
        """Say with which words an event is to be written; None where it is counted, to be told with the next."""
        if kind not in LIMITS:
            return text
        now = time.monotonic()
        with self._lock:
            window = self._windows.get((node, kind))
            before = None
            if window is None or now - window.began >= WINDOW_S:
                before, window = window, _Window(now)
                self._windows[node, kind] = window
            if window.written >= LIMITS[kind]:
                window.more, window.last = window.more + 1, text
                return None
            window.written += 1
        if before and before.more:
            return f"{text}; {before.more} more in the last {_minutes(now - before.began)}"
        return text

    def counted(self, every: bool) -> list[tuple[str, str, str]]:
        """Take what was counted and not told, of windows that are over or of `every` one: node, kind and words."""
        now = time.monotonic()
        with self._lock:
            due = {
                key: one for key, one in self._windows.items() if one.more and (every or now - one.began >= WINDOW_S)
            }
            for key, one in due.items():
                self._windows[key] = _Window(one.began, one.written)
        return [
            (*key, f"{one.more} more in the last {_minutes(now - one.began)}, the last: {one.last}")
            for key, one in due.items()
        ]


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


_registry = threading.Lock()
_writers: dict[tuple[str, int], BatchWriter] = {}


def writer_of(run: Store, fence: int) -> BatchWriter:
    """Return this process's writer for that driver's time."""
    with _registry:
        return _writers.setdefault((run.uri, fence), BatchWriter(run))


def begin_anew(run: Store) -> None:
    """Forget what this process wrote of a run: another driver's time begins, perhaps in a folder that was emptied."""
    with _registry:
        for key in [key for key in _writers if key[0] == run.uri]:
            del _writers[key]


def writers() -> list[tuple[int, BatchWriter]]:
    """List all writers of this process, each with its fence."""
    with _registry:
        return [(fence, writer) for (_, fence), writer in _writers.items()]


def _forget() -> None:
    """A forked child writes nothing on behalf of its parent."""
    global _registry
    _registry = threading.Lock()
    _writers.clear()


os.register_at_fork(after_in_child=_forget)
