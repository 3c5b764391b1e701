"""Curves of a running node: `{node}/curves.json`, and beside it those of tasks that still run. Numbers by step.

The object holds every curve whole and is rewritten, so that a restart leaves no point twice. It is bounded: of a long
curve the newest rows are all kept, of the older ones every k-th. Never part of a record; nothing is decided by it.
"""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vitpipe.infra.errors import NotFound
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.rewritten import Rewritten
from vitpipe.infra.storage.store import Store

CURVES = "curves.json"
SCHEMA = 1
EVERY_S = 10.0
"""Writes are at least this far apart; readers may count on 15 s."""
SETTLE_S = 5.0
"""At its end a work waits no longer for its curves to be in the store: what they show is in its artifact too."""
RECENT_ROWS, OLDER_ROWS = 512, 1024
"""Of one table: so many of the newest rows, and of those before every k-th; k is the smallest power of two that leaves
no more than so many. At some 100 bytes a row a training's file has 150 kB at most, after ten million steps too."""


@dataclass(frozen=True)
class CurvePoint:
    """One value of one curve."""

    step: int
    clock: float
    """Seconds of training until then; 0 where nobody counted them."""
    value: float


Lines = Mapping[str, Mapping[str, tuple[CurvePoint, ...]]]
"""Points by what they are of (the empty name is the node itself, others are its trials) and by tag."""


@dataclass(frozen=True)
class Curves:
    """What one such object holds."""

    attempt: str
    """Whose they are: `a{fence}`, or `a{fence}.{k}` after a gang's k-th restart."""
    lines: Lines = field(default_factory=dict)
    has_parts: bool = False
    """Whether tasks leave theirs in `{attempt}/curves/` while they run."""


class CurveTable:
    """Rows of one set of tags, thinned by their place in the whole, and so the same whoever gives them again."""

    def __init__(self, tags: tuple[str, ...], recent: int = RECENT_ROWS, older: int = OLDER_ROWS) -> None:
        self.tags = tags
        self._recent: deque[tuple[int, list[Any]]] = deque()
        self._older: list[tuple[int, list[Any]]] = []
        self._most_recent, self._most_older, self._every, self._count = recent, older, 1, 0

    def add(self, step: int, clock: float | None, values: Iterable[float | None]) -> None:
        """Append a row."""
        self._recent.append((self._count, [step, clock, *values]))
        self._count += 1
        if len(self._recent) > self._most_recent:
            place, row = self._recent.popleft()
            if place % self._every == 0:
                self._older.append((place, row))
        while len(self._older) > self._most_older:
            self._every *= 2
            self._older = [(place, row) for place, row in self._older if place % self._every == 0]

    @property
    def rows(self) -> list[list[Any]]:
        """The rows that are kept: step, clock, and a value or None for each tag."""
        return [row for _, row in (*self._older, *self._recent)]


class Gathered:
    """The tables of one node or task. Thread-safe."""

    def __init__(self, recent: int = RECENT_ROWS, older: int = OLDER_ROWS) -> None:
        self._rows = recent, older
        self._tables: dict[tuple[str, tuple[str, ...]], CurveTable] = {}
        self._lock = threading.Lock()

    def add(self, step: int, values: Mapping[str, float | None], clock: float | None = None, of: str = "") -> None:
        """Append the values of a step; what is not finite is left out."""
        key = of, tuple(values)
        with self._lock:
            table = self._tables.get(key) or self._tables.setdefault(key, CurveTable(key[1], *self._rows))
            table.add(step, clock, [_finite(value) for value in values.values()])

    def encode(self, attempt: str, has_parts: bool = False) -> bytes:
        """Write the object."""
        with self._lock:
            tables = [{"of": of, "tags": tags, "rows": table.rows} for (of, tags), table in self._tables.items()]
        head = {"schema": SCHEMA, "attempt": attempt, "time": round(time.time(), 3), "parts": has_parts}
        return json.dumps({**head, "tables": tables}, separators=(",", ":"), allow_nan=False).encode()


class LiveCurves:
    """Curves that one process adds to while they are written to the store behind its back. Thread-safe."""

    def __init__(
        self, node: Store, attempt: str, path: str = CURVES, gathered: Gathered | None = None, has_parts: bool = False
    ) -> None:
        """Begin without a point; `path` is another for the curves of one task of a node, see `part_path`."""
        self._file = Rewritten(node, path, EVERY_S)
        self._attempt, self._has_parts = attempt, has_parts
        self._gathered = gathered or Gathered()

    def add(
        self, step: int, values: Mapping[str, float | None], clock: float | None = None, of: str = "", told: bool = True
    ) -> None:
        """Append the values of a step; with `told` false they wait for `tell`."""
        self._gathered.add(step, values, clock, of)
        if told:
            self.tell()

    def tell(self) -> None:
        """Let what was added come into the store."""
        self._file.offer(lambda: self._gathered.encode(self._attempt, self._has_parts))

    def settle(self, wait_s: float) -> None:
        """Wait until the newest is in the store, but no longer than that."""
        self._file.settle(wait_s)


def thinned(points: Iterable[tuple[str, int, float, Mapping[str, float | None]]]) -> Lines:
    """Make of whole curves what live ones would be: what each point is of, step, clock, values."""
    gathered = Gathered()
    for of, step, clock, values in points:
        gathered.add(step, values, clock, of)
    return parse(gathered.encode("")).lines


def part_path(attempt: str, name: str) -> str:
    """Where a task of that name leaves its curves while it runs, in its node's folder."""
    return f"{attempt}/curves/{name}.json"


def forget_others(node: Store, attempts: Iterable[str]) -> None:
    """Empty the curves in a node's folder if they are of none of these attempts: another recipe's points are not ours.

    Errors: those of the store.
    """
    try:
        found = parse(node.read(CURVES)).attempt
    except NotFound:
        return
    except ValueError:
        found = ""
    named = list(attempts)
    if family(found) not in {family(attempt) for attempt in named}:
        node.write(CURVES, Gathered().encode(named[0]))


def family(attempt: str) -> str:
    """Name the attempt without its gang's restart number."""
    return attempt.partition(".")[0]


def parse(data: bytes) -> Curves:
    """Parse the object. ValueError when vitpipe did not write it, or a newer one did."""
    fields = parse_object(data)
    try:
        if fields["schema"] > SCHEMA:
            raise ValueError(f"a newer vitpipe wrote it: schema {fields['schema']}, this one reads {SCHEMA}")
        lines: dict[str, dict[str, list[CurvePoint]]] = {}
        for table in fields["tables"]:
            of = lines.setdefault(str(table["of"]), {})
            for place, tag in enumerate(table["tags"]):
                points = (_point(row, row[2 + place]) for row in table["rows"] if row[2 + place] is not None)
                of.setdefault(str(tag), []).extend(points)
        frozen = {of: {tag: tuple(points) for tag, points in tags.items()} for of, tags in lines.items()}
        return Curves(str(fields["attempt"]), frozen, bool(fields.get("parts")))
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(repr(error)) from error


def _point(row: list[Any], value: Any) -> CurvePoint:
    return CurvePoint(int(row[0]), float(row[1] or 0.0), float(value))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
