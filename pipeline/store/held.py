"""What an attempt held of the cluster: `{node}/a{fence}/held.json`, for as long as no record says it.

Nothing but an account hangs on it: what cannot be read counts as nothing.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import NotFound, StorageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store

PATH = "held.json"
HELD = {"CPU": "core_seconds", "GPU": "gpu_seconds"}
"""Metrics of a record, by Ray's names of what was held."""
_BEFORE = "before"

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


def encoded(held: Mapping[str, float], before: Seconds) -> bytes:
    """The content of `held.json`: the attempt's own seconds, and those of the attempts that it goes on from."""
    return json.dumps({**held_seconds(held), _BEFORE: before}).encode()


def held_before(node: Store, attempts: Iterable[str]) -> dict[str, float]:
    """Add up what attempts held of which a new one takes pieces over, named from the newest on.

    The newest that says something speaks for those before it too.
    """
    for attempt in attempts:
        with suppress(StorageError):
            if "." not in attempt and (said := _read(node, attempt)):
                own, before = said
                return {metric: own.get(metric, 0.0) + before.get(metric, 0.0) for metric in own | before}
    return {}


class HeldReader:
    """Reads what attempts held, each again only while it runs."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._known: dict[Tried, Seconds] = {}

    def read(self, attempts: Mapping[Tried, bool]) -> Mapping[Tried, Seconds]:
        """Say it of attempts, of which some run; empty where one left no word of it. StorageError."""
        self._known |= by_key(self._one, (one for one, runs in attempts.items() if runs or one not in self._known))
        return {one: self._known[one] for one in attempts}

    def _one(self, attempt: Tried) -> Seconds:
        node, fence = attempt
        said = _read(self._run.child(node), f"a{fence}")
        return said[0] if said else {}


def _read(node: Store, attempt: str) -> tuple[dict[str, float], dict[str, float]] | None:
    """Its own seconds, and those before it; None where it left no word, or a damaged one. StorageError."""
    with suppress(NotFound, ValueError, TypeError, AttributeError):
        fields = parse_object(node.read(f"{attempt}/{PATH}"))
        return _numbers(fields), _numbers(fields.get(_BEFORE) or {})
    return None


def _numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    return {metric: max(0.0, float(fields[metric])) for metric in HELD.values() if metric in fields}
