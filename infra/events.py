"""Facts for people: one small object per event below `{run}/events/`, in the order of time.

Knows no kinds: who emits names them.
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
    """One fact. `node` is empty for one about the whole run."""

    time: str
    """UTC, ISO 8601 with milliseconds."""
    fence: int
    node: str
    kind: str
    text: str
    name: str = ""
    """Its object's name: hand the newest back to `read_events` to read on from there."""

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def write(self, run: Store) -> None:
        """Into the run's folder. StorageError."""
        run.write(FOLDER + self.name, json.dumps(self.to_json()).encode())


@dataclass(frozen=True)
class StoreEvents:
    """Satisfies `stages.contract.Events`. Picklable."""

    run: Store
    """The run's folder."""
    fence: int
    node: str = ""

    def emit(self, kind: str, text: str) -> None:
        """Write one event; the log alone has it when the store does not take it: no work ends for what is told."""
        try:
            self.event(kind, text).write(self.run)
        except StorageError as error:
            log.warning("%s: %s (not in the store: %s)", kind, text, error)

    def event(self, kind: str, text: str) -> Event:
        """An event of now, under a name that no other has; not written yet."""
        now_ns = time.time_ns()
        name = f"{now_ns:020d}-{self.fence}-{secrets.token_hex(4)}.json"
        return Event(_stamp(now_ns), self.fence, self.node, kind, text, name)

    def of(self, node: str) -> "StoreEvents":
        return replace(self, node=node)


def read_events(run: Store, after: str = "", tail: int | None = None) -> Iterator[Event]:
    """Events of the run in that folder, oldest first, those up to the one named `after` left out.

    With `tail`, the last so many alone; no others are read. One that cannot be understood is given in its place as an
    event of kind `damaged`.
    """
    listed = sorted((entry.path.removeprefix(FOLDER) for entry in run.list(FOLDER)), key=_order)
    names = [name for name in listed if name.endswith(".json") and (not after or _order(name) > _order(after))]
    for event in answers(lambda name: _read(run, name), names if tail is None else names[max(0, len(names) - tail) :]):
        if event is not None:
            yield event


def _order(name: str) -> tuple[int, str]:
    """Drivers follow each other by their fences; only within one driver's time are clocks asked."""
    match = _NAME.fullmatch(name)
    return (int(match[2]) if match else 0, name)


def _read(run: Store, name: str) -> Event | None:
    """The event; None when it was collected as garbage since it was listed."""
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
    """Where the event's name tells when and under which fence it was written, that is kept."""
    match = _NAME.fullmatch(name)
    time, fence = (_stamp(int(match[1])), int(match[2])) if match else ("", 0)
    return Event(time, fence, "", "damaged", f"damaged event: {name} ({why})", name)


def _stamp(now_ns: int) -> str:
    return datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_events(run: Store, fence: int, seen: Container[str]) -> Iterator[Event]:
    """Events under one fence whose names are not among `seen`, oldest first; machines' clocks differ, so one may come
    with a name before theirs."""
    names = sorted(entry.path.removeprefix(FOLDER) for entry in run.list(FOLDER))
    wanted = [name for name in names if name not in seen and name.endswith(".json") and _order(name)[0] == fence]
    yield from (event for event in answers(lambda name: _read(run, name), wanted) if event is not None)
