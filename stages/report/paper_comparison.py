"""Our results as columns of the paper's own tables: 2, 5 and 9 by benchmark, 6 by model with what it cost.

Knows rows of the table and the paper's numbers; nothing of a page.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.stages.paper.tables import benchmark_id, tables, title, vtab_means, vtab_task
from vitpipe.stages.report.results import ScoreRow
from vitpipe.stages.report.scaling import Pretraining
from vitpipe.stages.report.wording import last_part

Columns = Mapping[str, Mapping[str, ScoreRow]]
"""Our scores by the name of their column, then by the paper's benchmark."""


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


def grids(rows: Sequence[ScoreRow], known: Mapping[str, Pretraining]) -> list[Grid]:
    """Every table of the paper that has a benchmark which was fine-tuned here, or its ReaL labels."""
    columns = {row.uri: _column(row) for row in rows if row.kind == "pretrained"}
    ours: dict[str, dict[str, ScoreRow]] = {}
    for row in rows:
        benchmark = _name(row)
        if benchmark is not None:  # a head that is only evaluated belongs to the column it was fine-tuned in
            column = columns.get(row.uri) or columns.get(str(row.protocol.get("weights"))) or _column(row)
            ours.setdefault(column, {}).setdefault(benchmark, row)
    if not ours:
        return []
    found = [_second(ours), _fifth(ours), _authors(ours), _sixth(ours, known), _ninth(ours)]
    return [grid for grid in found if grid is not None]


def _name(row: ScoreRow) -> str | None:
    """The paper's benchmark that a row answers, or None: fine-tuned from pretrained weights, or its head by ReaL."""
    if row.split != "test":
        return None  # the paper's numbers are of the test splits
    if row.protocol.get("method") == "real":
        return "imagenet-real" if benchmark_id(row.benchmark) in ("imagenet", "imagenet-real") else None
    if row.kind != "pretrained":
        return None
    name = vtab_task(row.benchmark) or benchmark_id(row.benchmark)
    classes = tables()["benchmarks"].get(name, {}).get("classes")
    own = row.model is not None and classes is not None and row.model.classes != classes
    return None if own else name  # a folder called `pets` with four classes is not the paper's


def _column(row: ScoreRow) -> str:
    """Rows of one column start from the same weights and see images of the same size."""
    return f"{last_part(str(row.protocol.get('weights') or row.uri))}, {row.protocol.get('image_px')} px"


def _cell(row: ScoreRow | None, promised: int | None = None) -> Cell:
    """Our score; `promised` is how many test images the paper's number is over."""
    if row is None:
        return DASH
    text = f"{100 * row.value:.2f}" + (f" ± {100 * row.std:.2f}" if row.std is not None else "")
    fewer = promised is not None and row.num_test < promised
    return Cell(text, ours=True, note=f"on {row.num_test:,} of {promised:,} test images" if fewer else "")


def _cells(ours: Columns, benchmark: str) -> Iterable[Cell]:
    """Our score on a benchmark in each of our columns."""
    promised = tables()["benchmarks"].get(benchmark, {}).get("test")
    return (_cell(found.get(benchmark), promised) for found in ours.values())


def _has(ours: Columns, benchmark: str) -> bool:
    return any(benchmark in found for found in ours.values())


def _grid(table: Mapping[str, Any], name: str, ours: Columns, theirs: Iterable[tuple[str, str]], rows: Any) -> Grid:
    head = (*((column, "this run") for column in ours), *((named, below) for named, below in theirs))
    return Grid(name, f"{table['title']}; percent.", head, tuple(rows))


def _second(ours: Columns) -> Grid | None:
    table, rows = tables()["table2"], []
    for name in (one for one in table["rows"] if one != "vtab" and _has(ours, one)):
        numbers = [f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "") for mean, std in table["rows"][name]]
        rows.append((title(name), (*_cells(ours, name), *map(Cell, numbers))))
    return _grid(table, "Table 2", ours, table["columns"], rows) if rows else None


def _fifth(ours: Columns) -> Grid | None:
    table, rows = tables()["table5"], []
    for data, by_name in table["rows"].items():
        for name, values in by_name.items():
            if _has(ours, name):
                theirs = [Cell(f"{value:.2f}") if value is not None else DASH for value in values]
                rows.append((f"{title(name)} after {data}", (*_cells(ours, name), *theirs)))
    theirs_head = ((f"ViT-{model}", "384 px") for model in table["columns"])
    return _grid(table, "Table 5", ours, theirs_head, rows) if rows else None


def _authors(ours: Columns) -> Grid | None:
    columns, rows = tables()["authors"]["rows"], []
    for name in tables()["benchmarks"]:
        if _has(ours, name) and any(name in one["values"] for one in columns):
            theirs = (Cell(f"{one['values'][name]:.2f}") if name in one["values"] else DASH for one in columns)
            rows.append((title(name), (*_cells(ours, name), *theirs)))
    authors = ((one["model"], f"{one['source']}, {one['pretrained_on']}") for one in columns)
    head = (*((column, "this run") for column in ours), *authors)
    note = "What their documentation reports; percent."
    return Grid(tables()["authors"]["title"], note, head, tuple(rows)) if rows else None


def _sixth(ours: Columns, known: Mapping[str, Pretraining]) -> Grid | None:
    table = tables()["table6"]
    names, rows = table["columns"][:-1], []
    for column, found in ours.items():
        if any(name in found for name in names):
            made = next((known[row.record_sha256] for row in found.values() if row.record_sha256 in known), None)
            spent = Cell(f"{made.flops / 1e18:.3g}", ours=True) if made else DASH
            rows.append((column, (*(next(iter(_cells({column: found}, name))) for name in names), spent)))
    if not rows:
        return None
    for row in table["rows"]:
        numbers = [Cell(f"{value:.2f}") for value in row["values"][:-1]]
        prefix = "" if row["model"].startswith("R") else "ViT-"
        named = f"{prefix}{row['model']}, {row['epochs']} epochs of JFT-300M"
        rows.append((named, (*numbers, Cell(f"{row['values'][-1]}"))))
    head = [*((title(name), "") for name in names), ("exaFLOPs", "to pretrain")]
    return _grid(table, "Table 6", {}, head, rows)


def _ninth(ours: Columns) -> Grid | None:
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
            facts = table["tasks"][task]
            theirs = [Cell(f"{value:.1f}") for value in facts["values"]]
            rows.append((facts["title"], (*(_cell(found.get(task)) for found in ours.values()), *theirs)))
        rows.append((f"mean of {group} tasks", _means(tasks, group, ours)))
    rows.append(("mean of all 19", _means(list(table["tasks"]), "all", ours)))
    return _grid(table, "Table 9", ours, table["columns"], rows)


def _means(tasks: Sequence[str], group: str, ours: Columns) -> tuple[Cell, ...]:
    """The mean over the tasks that a column has; over fewer than all it says so, since it compares with nothing."""
    cells = []
    for found in ours.values():
        values = [100 * found[task].value for task in tasks if task in found]
        note = "" if len(values) == len(tasks) else f"of {len(values)} tasks"
        cells.append(Cell(f"{statistics.fmean(values):.2f}", ours=True, best=True, note=note) if values else DASH)
    return (*cells, *(Cell(f"{means[group]:.2f}", best=True) for means in vtab_means().values()))
