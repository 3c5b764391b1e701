"""Rows of facts: pandas' DataFrame where pandas is installed, else a list of dicts that prints as a table."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any


class Rows(list[dict[str, Any]]):
    """Dicts with the same keys, shown with a column for each."""

    def __repr__(self) -> str:
        """Columns as wide as they need, their names above."""
        if not self:
            return "(none)"
        names = list(self[0])
        lines = [names, *([_cell(row[name]) for name in names] for row in self)]
        wide = [max(len(line[place]) for line in lines) for place in range(len(names))]
        padded = ([cell.ljust(width) for cell, width in zip(line, wide, strict=True)] for line in lines)
        return "\n".join("  ".join(cells).rstrip() for cells in padded)


def table(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Make the table; keys that a row lacks are None in it."""
    found = [dict(row) for row in rows]
    names = dict.fromkeys(name for row in found for name in row)
    whole = Rows({name: row.get(name) for name in names} for row in found)
    try:
        pandas = import_module("pandas")  # optional: whoever has it gets it
    except ImportError:
        return whole
    return pandas.DataFrame(whole, columns=list(names))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
