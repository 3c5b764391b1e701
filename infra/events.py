"""Facts for people: one small object per event below `{run}/events/`, in the order of time.

Knows no kinds: who emits names them.
"""

import json
import logging
import secrets
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from infra.errors import IntegrityError, NotFound, StorageError
from infra.storage.store import Store

FOLDER = "events/"

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
        stamp = datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = f"{now_ns:020d}-{self.fence}-{secrets.token_hex(4)}.json"
        return Event(stamp, self.fence, self.node, kind, text, name)

    def of(self, node: str) -> "StoreEvents":
        return replace(self, node=node)


def read_events(run: Store, after: str = "") -> Iterator[Event]:
    """Events of the run in that folder, oldest first, those up to the one named `after` left out."""
    for entry in run.list(FOLDER):
        name = entry.path.removeprefix(FOLDER)
        if name > after and name.endswith(".json"):
            try:
                yield Event(**json.loads(run.read(entry.path)), name=name)
            except NotFound:
                continue  # collected as garbage since it was listed
            except (ValueError, TypeError) as error:
                raise IntegrityError(f"read {run.uri}/{entry.path}", f"damaged: {error}", "delete it") from error


def new_events(run: Store, fence: int, seen: Container[str]) -> Iterator[Event]:
    """Events under one fence whose names are not among `seen`, oldest first; machines' clocks differ, so one may come
    with a name before theirs. One that is damaged is left out: `read_events` names it."""
    for entry in run.list(FOLDER):
        name = entry.path.removeprefix(FOLDER)
        if name not in seen and name.partition("-")[2].startswith(f"{fence}-"):
            with suppress(NotFound, ValueError, TypeError):
                yield Event(**json.loads(run.read(entry.path)), name=name)
