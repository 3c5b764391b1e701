"""Many runs as tables, lines, JSON, CSV and LaTeX. Knows no store; everything is handed in."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vitpipe.pipeline.cli.terminal import printable
from vitpipe.pipeline.plan.comparison import Comparison, Distinction
from vitpipe.pipeline.plan.fingerprint import MISSING
from vitpipe.pipeline.store.consumption import Consumption, spent
from vitpipe.pipeline.store.many_runs import RunFacts
from vitpipe.stages.artifacts import Score
from vitpipe.stages.report.latex import LATEX, tabular
from vitpipe.stages.report.results import percent
from vitpipe.stages.report.wording import duration

_LATEX = LATEX | str.maketrans({"±": r"$\pm$", "–": "--"})


def score_text(score: Score) -> str:
    """Write a score with its spread over seeds: an accuracy in percent, any other as it is."""
    if 0 <= score.value <= 1:
        return percent(score.value, score.std)
    return f"{score.value:.4g}"


def cost_text(cost: Consumption) -> str:
    """Write `4 min 36 s, 0.31 GPU-hours, price 0.93`."""
    words = [duration(cost.seconds)] + ([f"{cost.gpu_hours:.3g} GPU-hours"] if cost.gpu_hours else [])
    return ", ".join([*words, *([f"price {cost.price:.3g}"] if cost.price is not None else [])])


def cost_of(run: RunFacts, price: float | None) -> Consumption:
    """Add up what a run's committed nodes took."""
    return spent((found.record for found in run.records.values()), price)


def diff_lines(found: Comparison) -> Iterator[str]:
    """Write how two runs differ, one line a field: `backbone: config.optimizer.peak_lr 0.001 -> 0.003`."""
    one, other = found.runs
    yield f"{one.uri} -> {other.uri}"
    yield from (f"{field.node}: {_change(field)}" for field in found.fields)
    yield from _only(found)
    if found.equal:
        yield f"equal: {', '.join(found.equal)}"
    if not found.fields and not found.only:
        yield "no difference"


def diff_json(found: Comparison) -> dict[str, Any]:
    """The same as `diff --json` prints it."""
    changes = [
        {"node": one.node, "field": ".".join(one.path), "a": _plain(one.values[0]), "b": _plain(one.values[1])}
        for one in found.fields
    ]
    only = [[id for id, places in found.only.items() if place in places] for place in (0, 1)]
    ends = {"a": found.runs[0].uri, "b": found.runs[1].uri}
    return ends | {"changes": changes, "only_a": only[0], "only_b": only[1], "equal": list(found.equal)}


def compare_json(found: Comparison, fields: Sequence[Distinction], price: float | None) -> dict[str, Any]:
    """The table as `compare --json` prints it; a field that a run does not have is null there."""
    runs = []
    for place, run in enumerate(found.runs):
        scores = run.scores
        runs.append(
            {
                "run": run.uri,
                "name": run.name,
                "state": run.state,
                "values": {field.name: _plain(field.values[place]) for field in fields},
                "scores": {id: score.value for id, score in scores.items()},
                "spreads": {id: score.std for id, score in scores.items()},
                "cost": cost_of(run, price).to_json(),
            }
        )
    only = {id: [found.runs[place].uri for place in places] for id, places in found.only.items()}
    return {"fields": [field.name for field in fields], "runs": runs, "only": only, "equal": list(found.equal)}


def notes(found: Comparison) -> Iterator[str]:
    """Say what a table of several runs does not show: nodes that some lack, runs without a score."""
    yield from _only(found)
    if bare := [run.name for run in found.runs if not run.scores]:
        yield f"no score yet: {', '.join(bare)}"


@dataclass(frozen=True)
class RunTable:
    """A table of runs: a heading each for fields, scores and cost, and a row a run."""

    names: tuple[str, ...]
    """What to call each run: its name, its URI where two share a name."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plain: tuple[tuple[str, tuple[Any, ...]], ...]
    """Columns of bare values, for a program: a name and a value a run."""

    def shown(self) -> RenderableType:
        """Lay it out for a person."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, heading in enumerate(self.head):
            table.add_column(heading, overflow="fold", justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table

    def lines(self) -> Iterator[str]:
        """Write it as lines for a log."""
        for row in self.rows:
            cells = zip(self.head[1:], row[1:], strict=True)
            yield f"{row[0]}: " + "; ".join(f"{name} {cell}" for name, cell in cells)

    def csv(self) -> str:
        """Write bare values: scores as fractions, their spread in a column of its own."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(name for name, _ in self.plain)
        writer.writerows(zip(*(values for _, values in self.plain), strict=True))
        return out.getvalue()

    def latex(self) -> str:
        r"""Write a `tabular` with the rules of booktabs."""
        head, *rows = ([cell.translate(_LATEX) for cell in row] for row in (self.head, *self.rows))
        return tabular(f"l{'r' * (len(head) - 1)}", head, rows)


def table(found: Comparison, fields: Sequence[Distinction], price: float | None) -> RunTable:
    """Make the table of runs with these fields."""
    runs, names = found.runs, _names(found.runs)
    scores = [run.scores for run in runs]
    scored = list(dict.fromkeys(id for one in scores for id in one))
    costs = [cost_of(run, price) for run in runs]
    rows = [
        (
            name,
            *(_cell(field, place) for field in fields),
            *(score_text(scores[place][id]) if id in scores[place] else "–" for id in scored),
            cost_text(costs[place]),
        )
        for place, name in enumerate(names)
    ]
    plain: list[tuple[str, tuple[Any, ...]]] = [("run", tuple(run.uri for run in runs))]
    plain += [("state", tuple(run.state for run in runs))]
    plain += [(field.name, tuple(_bare(field, place) for place in range(len(runs)))) for field in fields]
    for id in scored:
        here = [one.get(id) for one in scores]
        plain.append((id, tuple(one.value if one else "" for one in here)))
        plain.append((f"{id} std", tuple(one.std if one else None for one in here)))
    plain += [("seconds", tuple(round(cost.seconds, 3) for cost in costs))]
    plain += [("core_hours", tuple(round(cost.core_hours, 6) for cost in costs))]
    plain += [("gpu_hours", tuple(round(cost.gpu_hours, 6) for cost in costs))]
    plain += [("price", tuple(cost.price for cost in costs))] if price is not None else []
    head = ("run", *short_names(fields), *scored, "nodes took")
    return RunTable(names, head, tuple(rows), tuple(plain))


def short_names(fields: Sequence[Distinction]) -> list[str]:
    """Name fields as shortly as tells them apart: `peak_lr`, or `backbone peak_lr` where two nodes have one."""
    ends = [".".join(field.path[-1:]) for field in fields]
    return [end if ends.count(end) == 1 else _longer(field, fields) for end, field in zip(ends, fields, strict=True)]


def best(found: Comparison) -> str:
    """Say which run has the best mean score, where all that have scores share one, and whether the spread decides."""
    shared = [id for id in found.runs[0].scores if all(id in run.scores for run in found.runs)]
    if not shared:
        return ""
    id, names = shared[0], _names(found.runs)
    ranked = sorted(zip(names, (run.scores[id] for run in found.runs), strict=True), key=lambda one: -one[1].value)
    (first, high), (second, low) = ranked[0], ranked[1]
    if high.value == low.value:
        equal = [name for name, score in ranked if score.value == high.value]
        return f"{', '.join(equal[:-1])} and {equal[-1]} score the same on {id}: {score_text(high)}"
    spreads = [one.std for one in (high, low)]
    if None in spreads:
        clear = "with one seed the spread is unknown"
    elif high.value - (spreads[0] or 0) > low.value + (spreads[1] or 0):
        clear = "further apart than their seeds’ spread"
    else:
        clear = "within the seeds’ spread"
    return f"{first} is best on {id}: {score_text(high)}, then {second}: {score_text(low)}, {clear}"


def _longer(field: Distinction, fields: Sequence[Distinction]) -> str:
    named = f"{field.node} {field.path[-1]}"
    same = [one for one in fields if (one.node, one.path[-1]) == (field.node, field.path[-1])]
    return named if len(same) == 1 else field.name


def _names(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    names = [run.name for run in runs]
    return tuple(run.name if names.count(run.name) == 1 else run.uri for run in runs)


def _change(field: Distinction) -> str:
    return f"{'.'.join(field.path)} {field.text(0)} -> {field.text(1)}"


def _cell(field: Distinction, place: int) -> str:
    return "–" if field.values[place] is MISSING else field.text(place)


def _bare(field: Distinction, place: int) -> str:
    return "" if field.values[place] is MISSING else field.text(place)


def _plain(value: Any) -> Any:
    return None if value is MISSING else value


def _only(found: Comparison) -> Iterator[str]:
    names = _names(found.runs)
    for id, places in found.only.items():
        yield f"{id}: only in {', '.join(names[place] for place in places)}"
