"""The paper's tables, read from `tables.json`, and what they say about a benchmark. Knows no config and no result."""

import functools
import json
import statistics
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
    """Find the paper's benchmark that a node or data set is named after, or None."""
    wanted = name.lower().replace("_", "-")
    known: dict[str, Any] = tables()["benchmarks"]
    return next((one for one, facts in known.items() if wanted == one or wanted in facts["aliases"]), None)


def vtab_task(name: str) -> str | None:
    """Find the task of VTAB-1k that a node or data set is named after, or None."""
    wanted = name.lower().replace("_", "-")
    return wanted if wanted in tables()["table9"]["tasks"] else None


def title(benchmark: str) -> str:
    """Write a benchmark as the paper does; any other name as it is."""
    known, task = benchmark_id(benchmark), vtab_task(benchmark)
    if task:
        return f"{tables()['table9']['tasks'][task]['title']} (VTAB-1k)"
    return str(tables()["benchmarks"][known]["title"]) if known else benchmark


def vtab_means() -> dict[tuple[str, str], dict[str, float]]:
    """Compute the means of Table 9 by model and its data: over `all` 19 tasks, and over each of its three groups."""
    tasks = tables()["table9"]["tasks"].values()
    groups = {"all": list(tasks)}
    for task in tasks:
        groups.setdefault(task["group"], []).append(task)
    return {
        (model, data): {
            group: statistics.fmean(task["values"][column] for task in members) for group, members in groups.items()
        }
        for column, (model, data) in enumerate(tables()["table9"]["columns"])
    }


def published(benchmark: str) -> list[Published]:
    """List what Tables 2, 5 and 9 report for a benchmark; nothing for one that the paper does not have."""
    known, task = benchmark_id(benchmark), vtab_task(benchmark)
    if task:
        ninth = tables()["table9"]
        return [
            Published("Table 9", model, data, value)
            for (model, data), value in zip(ninth["columns"], ninth["tasks"][task]["values"], strict=True)
        ]
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


@functools.cache
def tables() -> dict[str, Any]:
    """Read all of `tables.json`, once."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8"))
    return content
