"""The page of several runs: what it needs is read through their records; where it goes on this machine."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import StorageError, VitpipeError
from vitpipe.pipeline.cli.run_tables import RunTable, best, notes
from vitpipe.pipeline.cli.terminal import log_path
from vitpipe.pipeline.plan.comparison import Comparison, Distinction
from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.report import several_runs
from vitpipe.stages.report.pretraining import log_lines
from vitpipe.stages.report.results import rows


def page(found: Comparison, fields: Sequence[Distinction], table: RunTable) -> str:
    """Render the page: table, scores side by side, curves of all runs in one chart. Errors as `Artifact.read`."""
    troubles: list[str] = []
    return several_runs.render(
        title=" · ".join(table.names) if len(table.names) < 5 else f"{len(table.names)} runs",
        headline=best(found) or f"{len(table.names)} runs side by side",
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        fields=fields,
        table=table,
        runs=[(name, run.uri, run.state) for name, run in zip(table.names, found.runs, strict=True)],
        charts=list(_score_charts(found, table)),
        curves=several_runs.overlaid(_trainings(found, table, troubles)),
        notes=[*notes(found), *troubles],
        equal=found.equal,
    )


def place(names: Sequence[str]) -> Path:
    """Choose where a page goes that nobody gave a place: beside the logs, under the runs' names."""
    parts = "-".join(name.rpartition("/")[2] for name in names)
    return log_path("compare").parent / f"compare-{parts[:100]}.html"


def write(path: Path, text: str) -> Path:
    """Write a file whole; its absolute path. StorageError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"write {path}", error.strerror or str(error), "name another file, or make room") from error
    return path.absolute()


def _score_charts(found: Comparison, table: RunTable) -> Iterator[dict[str, Any]]:
    """One chart a node that is scored in some run, a row a run."""
    for id in dict.fromkeys(id for run in found.runs for id in run.scores):
        named = [(name, run.scores[id]) for name, run in zip(table.names, found.runs, strict=True) if id in run.scores]
        if all(0 <= value <= 1 for _, score in named for value in score.per_seed):
            yield several_runs.score_chart(id, rows([one for _, one in named], nodes={s.uri: n for n, s in named}))


def _trainings(
    found: Comparison, table: RunTable, troubles: list[str]
) -> Iterator[tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Read the logs of every pretraining: node, run, training's lines, evaluations' lines. What is lost is said."""
    for name, run in zip(table.names, found.runs, strict=True):
        for id, committed in run.records.items():
            artifact = committed.artifact()
            if not isinstance(artifact, Checkpoint):
                continue
            try:
                logs = [log_lines(artifact, log) for log in ("metrics.jsonl", "evaluation.jsonl")]
            except VitpipeError as error:
                troubles.append(f"no curves of {id} of {name}: {error}")
                continue
            yield id, name, logs[0], logs[1]
