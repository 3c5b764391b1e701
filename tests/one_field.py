"""A config with one field set anew."""

import copy
from typing import Any


def changed(recipe: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """The recipe with one field, named by its path, set anew."""
    made = copy.deepcopy(recipe)
    *parents, last = field.split(".")
    inner = made
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return made
