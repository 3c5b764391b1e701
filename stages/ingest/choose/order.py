"""The images of one range of a split's order, sorted: rows to write shards from, sizes to cut them by. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.choose.keep import SHUFFLE
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import SHEET_ROWS, sorted_rows
from vitpipe.stages.ingest.parts.sheets import Sheets, cut, read_each, write_sheets


@dataclass(frozen=True)
class OrderTask:
    """One range."""

    out: Out
    cell: int
    """Which table of each bin."""
    kept: Sequence[Sheets]
    """Of all bins."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("ordered", [self.cell, [one.sha256 for one in self.kept]])


def order(task: OrderTask) -> MadePart:
    """All bins' images of the range, by hash, then by name."""
    table = pa.concat_tables(read_each(task.out.node, ((one, task.cell) for one in task.kept)))
    table = sorted_rows(table, [SHUFFLE, "name"]).drop_columns(SHUFFLE)
    rows = write_sheets(task.out, f"{task.path}.rows", cut(table, SHEET_ROWS))
    sizes = write_sheets(task.out, f"{task.path}.sizes", [table.select(["bytes"])])
    return finish(task, {}, rows=rows, sizes=sizes)
