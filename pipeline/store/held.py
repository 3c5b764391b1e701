"""What an attempt held of the cluster: `{node}/a{fence}/held.json`, for as long as no record says it.

Nothing but an account hangs on it: what cannot be read counts as nothing.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import NotFound, StorageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store

PATH = "held.json"
HELD = {"CPU": "core_seconds", "GPU": "gpu_seconds"}
"""Metrics of a record, by Ray's names of what was held."""

Seconds = Mapping[str, float]
"""Seconds by metric; empty where nothing is known."""
Tried = tuple[str, int]
"""Its node, and its driver's fence."""


def held_seconds(held: Mapping[str, float], before: Seconds | None = None) -> dict[str, float]:
    """Turn what a cluster counted into metrics, with those of earlier attempts; empty where nothing was handed out."""
    earlier = before or {}
    if not held and not earlier:
        return {}
    return {metric: round(held.get(name, 0.0) + earlier.get(metric, 0.0), 3) for name, metric in HELD.items()}


@dataclass(frozen=True)
class HeldSoFar:
    """What an attempt held, and those that it went on from; and of which recipe it is."""

    own: Seconds = field(default_factory=dict)
    before: Seconds = field(default_factory=dict)
    fingerprint: str = ""

    def encoded(self) -> bytes:
        """The content of `held.json`."""
        return json.dumps({**self.own, "before": self.before, "fingerprint": self.fingerprint}).encode()


NOTHING = HeldSoFar()


def held_before(node: Store, attempts: Iterable[str]) -> dict[str, float]:
    """Add up what attempts held of which a new one takes pieces over, named from the newest on.

    The newest that says something speaks for those before it too.
    """
    for attempt in attempts:
        with suppress(StorageError):
            if "." not in attempt and (said := _read(node, attempt)) is not NOTHING:
                names = {*said.own, *said.before}
                return {name: said.own.get(name, 0.0) + said.before.get(name, 0.0) for name in names}
    return {}


class HeldReader:
    """Reads what attempts held, each again only while it runs."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._known: dict[Tried, HeldSoFar] = {}

    def read(self, attempts: Mapping[Tried, bool]) -> Mapping[Tried, HeldSoFar]:
        """Say it of attempts, of which some run; `NOTHING` where one left no word of it. StorageError."""
        self._known |= by_key(self._one, (one for one, runs in attempts.items() if runs or one not in self._known))
        return {one: self._known[one] for one in attempts}

    def _one(self, attempt: Tried) -> HeldSoFar:
        node, fence = attempt
        return _read(self._run.child(node), f"a{fence}")


def _read(node: Store, attempt: str) -> HeldSoFar:
    """Read it; `NOTHING` where there is none, or a damaged one. StorageError."""
    with suppress(NotFound, ValueError, TypeError, AttributeError):
        fields = parse_object(node.read(f"{attempt}/{PATH}"))
        return HeldSoFar(_numbers(fields), _numbers(fields.get("before") or {}), str(fields.get("fingerprint", "")))
    return NOTHING


def _numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    return {metric: max(0.0, float(fields[metric])) for metric in HELD.values() if metric in fields}
