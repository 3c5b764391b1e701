"""Parse a small JSON object that lies in a store, where anyone may have changed it. Knows no field of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vitpipe.infra.errors import IntegrityError

DEEPEST = 64
"""Levels of nesting that are accepted. What vitpipe writes is far flatter, and code that walks an object recurses."""


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse the fields. ValueError when the bytes are no JSON, no object, or nested beyond `DEEPEST`."""
    try:
        fields = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError(f"it is no object but {fields!r:.40}")
    level: list[Any] = [fields]
    for _ in range(DEEPEST):
        inside = [one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer)]
        level = [one for one in inside if isinstance(one, dict | list)]
        if not level:
            return fields
    raise ValueError("it is nested too deeply")


@contextmanager
def fields_of(place: str, do: str) -> Iterator[None]:
    """Around code that parses the object at `place` and takes its fields: IntegrityError for what it does not hold."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise IntegrityError(f"read {place}", f"it is damaged: {error!r}", do) from error
