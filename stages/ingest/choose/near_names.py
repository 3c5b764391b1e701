"""What is left out by its look, by name: lines of the duplicates, and a bit for each image. No torch.

Names are where the listing is: a task has a part of it, first to name what others are like, then to name its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.choose.contact_sheet import PAIRS
from vitpipe.stages.ingest.choose.duplicate import Duplicate, counted
from vitpipe.stages.ingest.choose.near import NearRule
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.parts.lines import line, line_tables
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import unpacked
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each, write_sheets

_LABELS = pa.list_(pa.int32())


@dataclass(frozen=True)
class NearNamesTask:
    """A part of the listing, or the excluded looks."""

    out: Out
    number: int
    names: Sequence[Sheets]
    """Of its rows, end to end."""
    found: Sequence[Sheets]
    """A table of each file is about it."""
    rule: NearRule

    @property
    def first(self) -> int:
        """Rows of the listing before it; the excluded looks are the first places."""
        return (*self.rule.starts[:-1], 0)[self.number]

    def made_from(self) -> list[Any]:
        """What tells it from others."""
        several = [[one.sha256 for one in files] for files in (self.names, self.found)]
        return [self.number, *several, repr(self.rule)]

    def tables(self) -> Iterator[Any]:
        """What was found, of each file."""
        return read_each(self.out.node, ((one, self.number) for one in self.found))

    def named(self) -> Any:
        """Name and labels of each row."""
        tables = (table for sheets in self.names for table in sheets.all(self.out.node))
        return pa.concat_tables([_plain(table) for table in tables])


class MatchTask(NearNamesTask):
    """A part that has what others are like."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("matches", self.made_from())


def name_matches(task: MatchTask) -> MadePart:
    """Names and labels of what images are like, a table for each part that has these."""
    rule = task.rule
    table = pa.concat_tables(task.tables())
    match = table.column("match").to_numpy()
    rows = match if task.number == rule.parts else rule.numbers(match) - task.first
    names = task.named().take(pa.array(rows)) if len(rows) else _NAMED.empty_table()
    table = table.append_column("of", names.column("name")).append_column("its_labels", names.column("labels"))
    parts = rule.part_of(table.column("place").to_numpy())
    return finish(task, {}, rows=write_sheets(task.out, f"{task.path}.rows", apart(table, parts, rule.parts)))


class LeftOutTask(NearNamesTask):
    """A part of which some are left out."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("near", self.made_from())


def leave_out(task: LeftOutTask) -> MadePart:
    """Lines of the duplicates, a bit for each row, counts, and the most doubtful: rows, names, and bits that differ."""
    table = pa.concat_tables(task.tables())
    rows = task.rule.numbers(table.column("place").to_numpy()) - task.first
    count = sum(sheets.rows for sheets in task.names)
    own = task.named().take(pa.array(rows)) if len(rows) else _NAMED.empty_table()
    found = [
        Duplicate(unpacked(name), unpacked(of), "near", others in (None, labels), distance, second)
        for name, labels, of, others, distance, second in zip(
            *(own.column(name).to_pylist() for name in _NAMED.names),
            *(table.column(name).to_pylist() for name in ("of", "its_labels", "distance", "second")),
            strict=True,
        )
    ]
    order = sorted(range(len(found)), key=lambda row: doubt(found[row]))[:PAIRS]
    matches = table.column("match").to_pylist()
    bits = np.zeros(count, dtype=bool)
    bits[rows] = True
    gone = {"first": [task.first], "count": [count], "bits": pa.array([np.packbits(bits).tobytes()], pa.large_binary())}
    pairs = [[int(task.first + rows[row]), matches[row], found[row].row()] for row in order]
    return finish(
        task,
        counted(found) | {"pairs": pairs},
        gone=write_sheets(task.out, f"{task.path}.gone", [pa.table(gone)]),
        lines=write_sheets(task.out, f"{task.path}.lines", line_tables(line(one.source, one.row()) for one in found)),
    )


def doubt(one: Duplicate) -> tuple[int, int, str]:
    """What sorts the most doubtful first."""
    return -(one.distance or 0), -(one.second or 0), one.source


_NAMED = pa.schema([("name", pa.binary()), ("labels", _LABELS)])


def _plain(table: Any) -> Any:
    """Name and labels; of an excluded look no labels."""
    if "labels" in table.column_names:
        return table.select(_NAMED.names)
    return pa.table([table.column("name"), pa.nulls(table.num_rows, _LABELS)], schema=_NAMED)
