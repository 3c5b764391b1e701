"""The runs of a store as a table for a person, as lines for a log, as JSON. Knows no store; all is handed in."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitpipe.pipeline.cli.run_tables import cost_of, cost_text, score_text
from vitpipe.pipeline.cli.terminal import printable
from vitpipe.pipeline.store.many_runs import RunFacts

HEADLINES = 3
"""Scores of a run that its line shows, the best first."""
_STYLES = {"committed": "green", "running": "cyan", "failed": "red", "unreadable": "red"}


def run_json(run: RunFacts, price: float | None) -> dict[str, Any]:
    """One run as `ls --json` prints it."""
    scores = [
        {"node": id, "metric": score.metric, "value": score.value, "std": score.std}
        | {"benchmark": score.benchmark, "seeds": len(score.per_seed)}
        for id, score in run.scores.items()
    ]
    facts = {"run": run.uri, "name": run.name, "state": run.state, "why": run.why}
    cost = cost_of(run, price).to_json()
    return facts | {"started": run.started, "ended": run.ended, "scores": scores, "cost": cost}


def listing(uri: str, runs: Sequence[RunFacts], price: float | None) -> RenderableType:
    """Lay out a store's runs for a person; what cannot be read is said below."""
    title = Text(f"runs of {uri}", style="table.title")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold", min_width=8)
    table.add_column("state", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    table.add_column("scores", ratio=1)
    table.add_column("nodes took", justify="right")
    for run in runs:
        state = Text(run.state, style=_STYLES.get(run.state, "yellow"))
        took = cost_text(cost_of(run, price)) if run.records else ""
        table.add_row(Text(run.name), state, age(run.ended), Text(_headlines(run)), took)
    said = [Text(printable(f"{run.name}: {run.why}"), style="dim") for run in runs if run.why]
    return Group(table, *said)


def listing_line(run: RunFacts, price: float | None) -> str:
    """Write one run of a store as a line for a log."""
    took = f"nodes took {cost_text(cost_of(run, price))}" if run.records else ""
    ended = run.ended and f"ended {run.ended}"
    return f"{run.name}: " + "; ".join(filter(None, (run.state, ended, _headlines(run), took, run.why)))


def age(moment: str | None) -> str:
    """Write how long ago a moment was, in its largest unit: `3 d ago`."""
    if moment is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def _headlines(run: RunFacts) -> str:
    ranked = sorted(run.scores.items(), key=lambda one: -one[1].value)
    words = [f"{id} {score_text(score)}" for id, score in ranked[:HEADLINES]]
    return ", ".join(words) + (f", {len(ranked) - HEADLINES} more" if len(ranked) > HEADLINES else "")
