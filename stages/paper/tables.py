"""The paper's tables, read from `tables.json`, and what they say of a benchmark. Knows no config and no result."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Published:
    """One number of the paper, percent."""

    table: str
    """`Table 2`."""
    model: str
    pretrained_on: str
    value: float
    spread: float | None = None
    """Standard deviation over three fine-tuning runs, where the paper gives it."""


def benchmark_id(name: str) -> str | None:
    """The paper's benchmark that a node or data set is named after, or None."""
    wanted = name.lower().replace("_", "-")
    known: dict[str, Any] = tables()["benchmarks"]
    return next((one for one, facts in known.items() if wanted == one or wanted in facts["aliases"]), None)


def title(benchmark: str) -> str:
    """How the paper writes a benchmark; any other name as it is."""
    known = benchmark_id(benchmark)
    if known is None and benchmark in vtab_tasks():
        return f"VTAB {vtab_tasks()[benchmark]}"
    return str(tables()["benchmarks"][known]["title"]) if known else benchmark


@functools.cache
def vtab_tasks() -> dict[str, str]:
    """The 19 tasks of Table 9 in its order: our name of each, and the paper's."""
    return {task: row[0] for group in tables()["table9"]["groups"].values() for task, row in group.items()}


def published(benchmark: str) -> list[Published]:
    """What Tables 2 and 5 report for a benchmark; nothing for one that the paper does not have."""
    known = benchmark_id(benchmark)
    if known is None:
        return []
    second, fifth = tables()["table2"], tables()["table5"]
    found = []
    for (model, data), (value, spread) in zip(second["columns"], second["rows"].get(known, ()), strict=False):
        found.append(Published("Table 2", model, data, value, spread))
    for data, rows in fifth["rows"].items():
        for model, value in zip(fifth["columns"], rows.get(known, ()), strict=False):
            if value is not None:
                found.append(Published("Table 5", f"ViT-{model}", data, value))
    return found


def by_authors(benchmark: str) -> list[Published]:
    """What the authors' own later code reaches on a benchmark, by their documentation."""
    known = benchmark_id(benchmark)
    return [
        Published(row["source"], row["model"], row["pretrained_on"], row["values"][known])
        for row in tables()["authors"]["rows"]
        if known in row["values"]
    ]


@functools.cache
def tables() -> dict[str, Any]:
    """All of `tables.json`."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("tables.json").read_text())
    return content
