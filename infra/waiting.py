"""What a node waits for, as data that travels in its progress file, and in words. Knows no queue, no Ray and no store.

A node's `progress.json` holds under `waits` what `Waiting.to_json` gives, for as long as nothing of the node runs. The
field is absent otherwise. `status --json` and `board` pass the same object on, with its `text` in it:

    {"for": "missing" | "busy" | "queue" | "start",
     "text": "place 3 of 150 in the queue, behind backbone; about 40 s",
     "asked": "2 x (4 CPU)", "largest": "", "behind": ["backbone"], "place": 3, "of": 150, "seconds": 40.0,
     "since": 1764445000.0}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

For = Literal["missing", "busy", "queue", "start"]
"""Machines that do not exist; machines that are busy with nodes; others that go before; a process that starts."""

_SHOWN = 3
"""Nodes that are named in words; the data have all of them."""


@dataclass(frozen=True)
class Waiting:
    """Why nothing of a node runs yet. Of many tasks it speaks of the one that goes first."""

    what: For
    asked: str = ""
    """What is asked for at once, each bundle on one machine: `2 x (4 CPU)`; `1 CPU` of a task."""
    largest: str = ""
    """What is missing: `largest machine has 1 CPU`, or `room for 1 on 4 machines` where a bundle has room."""
    behind: tuple[str, ...] = ()
    """Nodes that hold what is asked for, or that go before, the gravest first."""
    place: int | None = None
    """Its place in the queue of all nodes; 1 is the next."""
    of: int | None = None
    """How many wait in all."""
    seconds: float | None = None
    """Expected seconds until its turn by the estimates; None where one of what runs is not known."""
    since: float | None = None
    """When it began to wait for this, in seconds since the epoch by the driver's clock."""

    @property
    def text(self) -> str:
        """The same in words: what a person reads in `status`."""
        left = "" if self.seconds is None else f"; about {_time(self.seconds)}"
        named = ", ".join(self.behind[:_SHOWN]) + (" and others" if len(self.behind) > _SHOWN else "")
        match self.what:
            case "missing":
                return f"{self.asked} asked for, {self.largest}"
            case "busy":
                return f"{self.asked} asked for, {f'busy with {named}' if named else 'machines are busy'}{left}"
            case "queue":
                return f"place {self.place} of {self.of} in the queue{f', behind {named}' if named else ''}{left}"
            case "start":
                return "a process starts"

    def to_json(self) -> dict[str, Any]:
        """The object as it stands in `progress.json`, in `status --json` and on the board."""
        return {
            "for": self.what,
            "text": self.text,
            "asked": self.asked,
            "largest": self.largest,
            "behind": list(self.behind),
            "place": self.place,
            "of": self.of,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "since": self.since,
        }


def waiting_in(progress: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take what a node waits for out of its progress; None when it waits for nothing, or nobody can read it."""
    found = progress.get("waits")
    if not isinstance(found, dict) or found.get("for") not in get_args(For) or not isinstance(found.get("text"), str):
        return None
    return found


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
