"""Our results as columns of the paper's own tables: 2, 5 and 9 by benchmark, 6 by model with what it cost.

Knows rows of the table and the paper's numbers; nothing of a page.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.stages.paper.tables import benchmark_id, by_authors, tables, title, vtab_means, vtab_task
from vitpipe.stages.report.results import Row
from vitpipe.stages.report.scaling import Pretraining


@dataclass(frozen=True)
class Cell:
    """One number, or a dash."""

    text: str
    ours: bool = False
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A table with a name for each row and each column."""

    title: str
    note: str
    head: tuple[tuple[str, str], ...]
    """Name of each column, and small print below it."""
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


DASH = Cell("–")


def grids(rows: Sequence[Row], known: Mapping[str, Pretraining]) -> list[Grid]:
    """Every table of the paper that has a benchmark which was fine-tuned here, or its ReaL labels."""
    columns = {row.uri: _column(row) for row in rows if row.kind == "pretrained"}
    ours: dict[str, dict[str, Row]] = {}
    for row in rows:
        benchmark = _name(row)
        if benchmark is not None:  # a head that is only evaluated belongs to the column it was fine-tuned in
            column = columns.get(row.uri) or columns.get(str(row.protocol.get("weights"))) or _column(row)
            ours.setdefault(column, {}).setdefault(benchmark, row)
    if not ours:
        return []
    found = [_second(ours), _fifth(ours), _authors(ours), _sixth(ours, known), _ninth(ours)]
    return [grid for grid in found if grid is not None]


def _name(row: Row) -> str | None:
    """The paper's benchmark that a row answers, or None: fine-tuned from pretrained weights, or its head by ReaL."""
    if row.protocol.get("method") == "real":
        return "imagenet-real" if benchmark_id(row.benchmark) in ("imagenet", "imagenet-real") else None
    if row.kind != "pretrained":
        return None
    return vtab_task(row.benchmark) or benchmark_id(row.benchmark)


def _column(row: Row) -> str:
    """Rows of one column start from the same weights and see images of the same size."""
    start = str(row.protocol.get("weights") or row.uri).rstrip("/").rsplit("/", 1)[-1]
    return f"{start}, {row.protocol.get('image_px')} px"


def _cell(row: Row | None, promised: int | None = None) -> Cell:
    if row is None:
        return DASH
    text = f"{100 * row.value:.2f}" + (f" ± {100 * row.std:.2f}" if row.std is not None else "")
    fewer = promised is not None and row.num_test < promised
    return Cell(text, ours=True, note=f"on {row.num_test:,} of {promised:,} test images" if fewer else "")


def _head(ours: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, "this run") for name in ours)


def _promised(benchmark: str) -> int | None:
    number: int | None = tables()["benchmarks"].get(benchmark, {}).get("test")
    return number


def _second(ours: Mapping[str, Mapping[str, Row]]) -> Grid | None:
    table = tables()["table2"]
    wanted = [name for name in table["rows"] if name != "vtab" and any(name in found for found in ours.values())]
    rows = []
    for name in wanted:
        theirs = [
            Cell(f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")) for mean, std in table["rows"][name]
        ]
        rows.append((title(name), (*(_cell(found.get(name), _promised(name)) for found in ours.values()), *theirs)))
    head = (*_head(ours), *((model, data) for model, data in table["columns"]))
    return Grid("Table 2", f"{table['title']}; percent.", head, tuple(rows)) if rows else None


def _fifth(ours: Mapping[str, Mapping[str, Row]]) -> Grid | None:
    table, rows = tables()["table5"], []
    for data, by_name in table["rows"].items():
        for name, values in by_name.items():
            if any(name in found for found in ours.values()):
                theirs = [Cell(f"{value:.2f}") if value is not None else DASH for value in values]
                own = (_cell(found.get(name), _promised(name)) for found in ours.values())
                rows.append((f"{title(name)} after {data}", (*own, *theirs)))
    head = (*_head(ours), *((f"ViT-{model}", "384 px") for model in table["columns"]))
    return Grid("Table 5", f"{table['title']}; percent.", head, tuple(rows)) if rows else None


def _authors(ours: Mapping[str, Mapping[str, Row]]) -> Grid | None:
    names = [
        name for name in tables()["benchmarks"] if any(name in found for found in ours.values()) and by_authors(name)
    ]
    if not names:
        return None
    columns = tables()["authors"]["rows"]
    rows = tuple(
        (title(name), (*(_cell(found.get(name), _promised(name)) for found in ours.values()),
                       *(Cell(f"{one['values'][name]:.2f}") if name in one["values"] else DASH for one in columns)))
        for name in names
    )  # fmt: skip
    head = (*_head(ours), *((one["model"], f"{one['source']}, {one['pretrained_on']}") for one in columns))
    return Grid(tables()["authors"]["title"], "What their documentation reports; percent.", head, rows)


def _sixth(ours: Mapping[str, Mapping[str, Row]], known: Mapping[str, Pretraining]) -> Grid | None:
    table = tables()["table6"]
    names = table["columns"][:-1]
    rows = []
    for column, found in ours.items():
        if not any(name in found for name in names):
            continue
        made = next((known[row.record_sha256] for row in found.values() if row.record_sha256 in known), None)
        spent = Cell(f"{made.flops / 1e18:.3g}", ours=True) if made else DASH
        rows.append((column, (*(_cell(found.get(name), _promised(name)) for name in names), spent)))
    if not rows:
        return None
    for row in table["rows"]:
        numbers = [Cell(f"{value:.2f}") for value in row["values"][:-1]]
        prefix = "" if row["model"].startswith("R") else "ViT-"
        rows.append(
            (f"{prefix}{row['model']}, {row['epochs']} epochs of JFT-300M", (*numbers, Cell(f"{row['values'][-1]}")))
        )
    head = (*((title(name), "") for name in names), ("exaFLOPs", "to pretrain"))
    return Grid("Table 6", f"{table['title']}; percent.", head, tuple(rows))


def _ninth(ours: Mapping[str, Mapping[str, Row]]) -> Grid | None:
    table = tables()["table9"]
    ours = {column: found for column, found in ours.items() if found.keys() & table["tasks"].keys()}
    if not ours:
        return None
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    groups: dict[str, list[str]] = {}
    for task, facts in table["tasks"].items():
        groups.setdefault(facts["group"], []).append(task)
    for group, tasks in groups.items():
        for task in tasks:
            theirs = [Cell(f"{value:.1f}") for value in table["tasks"][task]["values"]]
            rows.append(
                (table["tasks"][task]["title"], (*(_cell(found.get(task)) for found in ours.values()), *theirs))
            )
        rows.append((f"mean of {group} tasks", _means(tasks, group, ours)))
    rows.append(("mean of all 19", _means(list(table["tasks"]), "all", ours)))
    head = (*_head(ours), *((model, data) for model, data in table["columns"]))
    return Grid("Table 9", f"{table['title']}; percent.", head, tuple(rows))


def _means(tasks: Sequence[str], group: str, ours: Mapping[str, Mapping[str, Row]]) -> tuple[Cell, ...]:
    """Of the tasks there are; who has fewer is told so, since such a mean compares with nothing."""
    cells = []
    for found in ours.values():
        values = [100 * found[task].value for task in tasks if task in found]
        note = "" if len(values) == len(tasks) else f"of {len(values)} tasks"
        cells.append(Cell(f"{statistics.fmean(values):.2f}", ours=True, best=True, note=note) if values else DASH)
    return (*cells, *(Cell(f"{means[group]:.2f}", best=True) for means in vtab_means().values()))
