"""The numbers at the end of a run, and where its page is: a table for a person, lines for a log. Reads no store."""

from collections.abc import Iterable, Mapping, Sequence

from vitpipe.pipeline.cli.fitting import FittingTable
from vitpipe.pipeline.cli.report_pages import PAGE
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.scores import CommittedScore

SHARES = ("top1", "real")
"""Metrics that are shares of images: shown in per cent."""


def score_table(rows: Sequence[CommittedScore]) -> FittingTable:
    """Lay out each score with its spread, its basis and the level of chance."""
    headings = ("node", "benchmark", "metric", "mean", "spread", "seeds", "images", "chance")
    cells = [
        (
            row.node,
            row.benchmark,
            row.metric,
            number(row.value, row.metric),
            number(row.std, row.metric),
            str(row.seeds),
            f"{row.images:,}{_named(row)}",
            number(row.chance, row.metric),
        )
        for row in rows
    ]
    return FittingTable(headings, cells, list(score_lines(rows)))


def score_lines(rows: Sequence[CommittedScore]) -> Iterable[str]:
    """Write each score as a line: `tuned: digits top1 90.7 % +- 2.7 % over 3 seeds, 360 images, chance 10.0 %`."""
    for row in rows:
        spread = f" +- {number(row.std, row.metric)}" if row.std is not None else ""
        seeds = f" over {row.seeds} seeds" if row.seeds > 1 else ""
        chance = f", chance {number(row.chance, row.metric)}" if row.chance is not None else ""
        value = number(row.value, row.metric)
        images = f"{row.images:,}{_named(row)} image{'' if row.images == 1 else 's'}"
        yield f"{row.node}: {row.benchmark} {row.metric} {value}{spread}{seeds}, {images}{chance}"


def _named(row: CommittedScore) -> str:
    """Name the split where it is not the usual one."""
    return "" if row.split == "test" else f" {row.split}"


def number(value: float | None, metric: str | None) -> str:
    """Write a score: `90.7 %` of a share, four digits of anything else."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.4g}"


def pages(committed: Mapping[str, Committed]) -> list[str]:
    """Say where the pages of these records' reports lie: paths on this machine, or addresses in their store."""
    reports = [one.artifact() for one in committed.values() if one.record.output.get("kind") == "Report"]
    return [f"{one.uri.removeprefix('file://')}/{one.file(PAGE).at}" for one in reports if one.has(PAGE)]
