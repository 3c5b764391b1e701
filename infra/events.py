"""Events for people: one small object each below `{run}/events/`, in order of time.

Knows no kinds of events: callers name them.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import NotFound, StorageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store

FOLDER = "events/"
_NAME = re.compile(r"(\d{20})-(\d+)-.*\.json")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One event; `node` is empty when it is about the whole run."""

    time: str
    """UTC, ISO 8601 with milliseconds."""
    fence: int
    node: str
    kind: str
    text: str
    name: str = ""
    """Name of its object: pass the newest to `read_events` to read on from there."""

    def to_json(self) -> dict[str, Any]:
        """One line of `events --json`."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def write(self, run: Store) -> None:
        """Write it into the run's folder. StorageError."""
        run.write(FOLDER + self.name, json.dumps(self.to_json()).encode())


@dataclass(frozen=True)
class StoreEvents:
    """Satisfies `stages.contract.Events`. Picklable."""

    run: Store
    """The run's folder."""
    fence: int
    node: str = ""

    def emit(self, kind: str, text: str) -> None:
        """Write one event; when the store refuses it, only the log has it: no work ends because an event was lost."""
        try:
            self.event(kind, text).write(self.run)
        except StorageError as error:
            log.warning("%s: %s (not in the store: %s)", kind, text, error)

    def event(self, kind: str, text: str) -> Event:
        """Make an event of this moment, under a name that no other has; it is not written yet."""
        now_ns = time.time_ns()
        name = f"{now_ns:020d}-{self.fence}-{secrets.token_hex(4)}.json"
        return Event(_stamp(now_ns), self.fence, self.node, kind, text, name)

    def of(self, node: str) -> "StoreEvents":
        """Return the same door for another node."""
        return replace(self, node=node)


def read_events(run: Store, after: str = "", tail: int | None = None) -> Iterator[Event]:
    """Yield the run's events, oldest first, beginning after the one named `after`.

    With `tail`, only the last so many are read. One that cannot be parsed is yielded as an event of kind `damaged`.
    """
    names = [name for name in _names(run) if not after or _order(name) > _order(after)]
    yield from _read_all(run, names if tail is None else names[max(0, len(names) - tail) :])


def new_events(run: Store, fence: int, seen: Container[str]) -> Iterator[Event]:
    """Yield the events of one fence that are not in `seen`, oldest first.

    Machines' clocks differ, so an event may appear whose name sorts before one that was seen.
    """
    yield from _read_all(run, [name for name in _names(run) if name not in seen and _order(name)[0] == fence])


def _names(run: Store) -> list[str]:
    listed = (entry.path.removeprefix(FOLDER) for entry in run.list(FOLDER))
    return sorted((name for name in listed if name.endswith(".json")), key=_order)


def _order(name: str) -> tuple[int, str]:
    """Sort by fence, for drivers follow each other; clocks are compared only within one driver's time."""
    match = _NAME.fullmatch(name)
    return (int(match[2]) if match else 0, name)


def _read_all(run: Store, names: list[str]) -> Iterator[Event]:
    yield from (event for event in answers(lambda name: _read(run, name), names) if event is not None)


def _read(run: Store, name: str) -> Event | None:
    """Read one event; None when it was collected as garbage since it was listed."""
    try:
        data = run.read(FOLDER + name)
    except NotFound:
        return None
    try:
        fields = parse_object(data)
        return _event(fields["time"], fields["fence"], fields["node"], fields["kind"], fields["text"], name)
    except (ValueError, TypeError, KeyError) as error:
        return _damaged(name, repr(error))


def _event(time: Any, fence: Any, node: Any, kind: Any, text: Any, name: str) -> Event:
    for value, wanted in ((time, str), (fence, int), (node, str), (kind, str), (text, str)):
        if not isinstance(value, wanted):
            raise TypeError(f"{value!r:.60} is not {wanted.__name__}")
    return Event(time, fence, node, kind, text, name)


def _damaged(name: str, why: str) -> Event:
    """Keep the time and the fence, where the event's name tells them."""
    match = _NAME.fullmatch(name)
    time, fence = (_stamp(int(match[1])), int(match[2])) if match else ("", 0)
    return Event(time, fence, "", "damaged", f"damaged event: {name} ({why})", name)


def _stamp(now_ns: int) -> str:
    return datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
