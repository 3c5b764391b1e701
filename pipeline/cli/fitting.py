"""A table that fits the terminal: reasons beside it, below it, or all as lines. Knows nothing of what is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

REASON = 36
"""A reason gets a column where this much of it fits into a line."""
LEFT = ("node", "stage", "do", "state", "benchmark", "metric")
"""Headings of words; the others are of numbers, which stand to the right."""


@dataclass(frozen=True)
class FittingTable:
    """Rows that begin with their node, and a reason for each, as wide as the terminal lets them be."""

    headings: Sequence[str]
    rows: Sequence[Sequence[RenderableType]]
    lines: Sequence[str]
    """The same as plain lines, for a terminal that is narrower than the rows."""
    reason: str = ""
    """Heading of the reasons."""
    reasons: Sequence[str] = ()
    title: str | None = None
    spare: str = ""
    """Heading of a column that is left out first."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=1_000, max_width=1_000)
        longest = min(REASON, max((len(one) for one in self.reasons), default=0))
        kept, room = self._kept(), 0
        for kept in (self._kept(), self._kept(self.spare)):
            room = options.max_width - Measurement.get(console, wide, self._table(kept, beside=False)).maximum
            if room > longest or room == longest == 0:
                yield self._table(kept, beside=longest > 0)
                return
        if room >= 0:
            yield self._table(kept, beside=False)
            for row, reason in zip(self.rows, self.reasons, strict=True):
                if reason:
                    yield Padding(Text.assemble(row[0] if isinstance(row[0], str) else "", ": ", reason), (0, 0, 0, 2))
            return
        yield from (Text(line) for line in ([self.title] if self.title else []) + list(self.lines))

    def _kept(self, without: str = "") -> list[int]:
        """Places of the columns that say something."""
        return [
            place
            for place, heading in enumerate(self.headings)
            if not (without and heading == without) and any(row[place] for row in self.rows)
        ]

    def _table(self, kept: Sequence[int], beside: bool) -> Table:
        title = Text(self.title, style="table.title") if self.title else None
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for place in kept:
            heading = self.headings[place]
            table.add_column(heading, no_wrap=True, justify="left" if heading in LEFT else "right")
        if beside:
            table.add_column(self.reason, ratio=1)
        for number, row in enumerate(self.rows):
            table.add_row(*(row[place] for place in kept), *([Text(self.reasons[number])] if beside else []))
        return table
