"""Facts for people: one small object per event below `{run}/events/`, in the order of time.

Knows no kinds: who emits names them.
"""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from infra.errors import IntegrityError, NotFound
from infra.storage.store import Store

FOLDER = "events/"


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


@dataclass(frozen=True)
class StoreEvents:
    """Satisfies `stages.contract.Events`. Picklable."""

    run: Store
    """The run's folder."""
    fence: int
    node: str = ""

    def emit(self, kind: str, text: str) -> None:
        self.write(kind, text)

    def write(self, kind: str, text: str) -> Event:
        """Write one event under a name that no other has; what was written."""
        now_ns = time.time_ns()
        stamp = datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = Event(stamp, self.fence, self.node, kind, text)
        name = f"{now_ns:020d}-{self.fence}-{secrets.token_hex(4)}.json"
        self.run.write(FOLDER + name, json.dumps(event.to_json()).encode())
        return replace(event, name=name)

    def of(self, node: str) -> "StoreEvents":
        return replace(self, node=node)


def read_events(run: Store, after: str = "") -> Iterator[Event]:
    """Events of the run in that folder, oldest first, those up to the one named `after` left out."""
    names = sorted((entry.path.removeprefix(FOLDER) for entry in run.list(FOLDER)), key=_order)
    for name in names:
        if name.endswith(".json") and (not after or _order(name) > _order(after)):
            try:
                yield Event(**json.loads(run.read(FOLDER + name)), name=name)
            except NotFound:
                continue  # collected as garbage since it was listed
            except (ValueError, TypeError) as error:
                raise IntegrityError(f"read {run.uri}/{FOLDER}{name}", f"damaged: {error}", "delete it") from error


def _order(name: str) -> tuple[int, str]:
    """Drivers follow each other by their fences; only within one driver's time are clocks asked."""
    fence = name.partition("-")[2].partition("-")[0]
    return (int(fence) if fence.isdecimal() else 0, name)
