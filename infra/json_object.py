"""A small JSON object as it lies in a store, where anyone may have changed it. Knows no field of it."""

import json
from typing import Any

DEEPEST = 64
"""What vitpipe writes is far flatter; whoever walks or writes it again recurses."""


def parse_object(data: bytes) -> dict[str, Any]:
    """The fields. ValueError for whatever else these bytes are: no JSON, no object, nested beyond `DEEPEST`."""
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
