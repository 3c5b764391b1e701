"""Which images are left out for which, place by place: pairs a range at a time, of all others whether they are gone.

The images of crowds alone are held by how they look. No torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.choose import near
from vitpipe.stages.ingest.choose.crowd import NONE, Crowd, nearness, told
from vitpipe.stages.ingest.choose.hamming import Places
from vitpipe.stages.ingest.choose.looks import VIEWS, views_of
from vitpipe.stages.ingest.choose.meet import Views
from vitpipe.stages.ingest.choose.near import NearRule
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import sorted_rows
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each, write_sheets

MATCHES = pa.schema([("place", pa.int64()), ("match", pa.int64()), ("distance", pa.uint8()), ("second", pa.uint8())])
"""A place that is left out, and what it is like."""


@dataclass(frozen=True)
class PairsTask:
    """A range of places."""

    out: Out
    number: int
    pairs: Sequence[Sheets]
    """Of all cells."""
    crowd: Sheets | None
    """The places that are crowded, if any are."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        known = [[one.sha256 for one in self.pairs], self.crowd.sha256 if self.crowd else None]
        return part_path("pairs", [self.number, *known])


def pairs_of_range(task: PairsTask) -> MadePart:
    """All pairs of the later places in the range, not both crowded: of each the nearest first."""
    node = task.out.node
    tables = read_each(node, ((one, task.number) for one in task.pairs))
    if task.crowd:
        crowd = task.crowd.read(node, 0).column("place").to_numpy()
        tables = (_not_both(table, crowd) for table in tables)
    table = sorted_rows(pa.concat_tables(tables), ["later", "distance", "second", "earlier"])
    return finish(task, {}, pairs=write_sheets(task.out, f"{task.path}.pairs", [table]))


def _not_both(table: Any, crowd: Places) -> Any:
    both = [np.isin(table.column(name).to_numpy(), crowd) for name in ("later", "earlier")]
    return table.filter(pa.array(~(both[0] & both[1])))


@dataclass(frozen=True)
class DecideTask:
    """All ranges."""

    out: Out
    pairs: Sequence[Sheets]
    """Of each range."""
    crowds: Sequence[Sheets]
    """The views of all that are crowded."""
    rule: NearRule

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        known = [[one.sha256 for one in several] for several in (self.pairs, self.crowds)]
        return part_path("decided", [*known, repr(self.rule), near.MOST_KEPT])


def decide(task: DecideTask) -> MadePart:
    """A file for each range of what is left out; how many images were compared in part."""
    rule, out = task.rule, task.out
    crowd, gone = _crowd(task), _Gone(rule)
    places = np.array(crowd.places, dtype=np.int64)
    ranges, files = rule.range_of(places), dict[str, Sheets]()
    for number, table in enumerate(read_each(out.node, ((one, 0) for one in task.pairs))):
        found = list(_decided(table, places[ranges == number].tolist(), crowd, gone, rule))
        columns = [list(column) for column in zip(*found, strict=True)] or [[]] * 4
        matches = pa.table(
            [pa.array(column, type=one.type) for column, one in zip(columns, MATCHES, strict=True)], schema=MATCHES
        )
        files[str(number)] = write_sheets(out, f"{task.path}.{number}", [matches])
    return finish(task, {"in_part": crowd.in_part}, **files)


def _crowd(task: DecideTask) -> Crowd:
    tables = [VIEWS.empty_table(), *read_each(task.out.node, ((one, 0) for one in task.crowds))]
    views = Views.joined([Views(*one) for one in views_of(iter(tables))])
    places = np.unique(views.places)
    rows = np.searchsorted(places, views.places)
    of_each = []
    for number in range(views.numbers.max(initial=0) + 1):
        these = np.flatnonzero(views.numbers == number)
        these = these[np.argsort(rows[these])]
        of_each.append((rows[these], views.looks[these]))
    return Crowd(places, of_each, task.rule.given, (task.rule.most, near.SECOND_MOST), near.MOST_KEPT)


class _Gone:
    """A bit for each image of the listing."""

    def __init__(self, rule: NearRule) -> None:
        self._rule, self._bits = rule, np.zeros(-(-rule.starts[-1] // 8), dtype=np.uint8)

    def add(self, place: int) -> None:
        number = self._number(place)
        self._bits[number >> 3] |= np.uint8(1 << (number & 7))

    def _number(self, place: int) -> int:
        return int(self._rule.numbers(np.array(place)))

    def __contains__(self, place: int) -> bool:
        if place < self._rule.given:
            return False
        number = self._number(place)
        return bool(self._bits[number >> 3] >> (number & 7) & 1)


def _decided(
    table: Any, places: list[int], crowd: Crowd, gone: _Gone, rule: NearRule
) -> Iterator[tuple[int, int, int, int]]:
    """What is left out of the places that have pairs or are of a crowd, ascending: all before them are decided."""
    later, earlier, distance, second = (column.to_numpy() for column in table.columns)
    own, starts = np.unique(later, return_index=True)
    ends = np.append(starts, len(later))[1:]
    found = {
        place: (start, end) for place, start, end in zip(own.tolist(), starts.tolist(), ends.tolist(), strict=True)
    }
    for place in sorted({*found, *places}):
        start, end = found.get(place, (0, 0))
        kept = next((row for row in range(start, end) if int(earlier[row]) not in gone), None)
        match = crowd.nearest(place)
        if kept is not None:
            match = min(match, nearness(int(distance[kept]), int(second[kept]), int(earlier[kept])))
        if match != NONE and place >= rule.given:
            gone.add(place)
            bits, more, other = told(match)
            yield place, other, bits, more
        else:
            crowd.keep(place)


@dataclass(frozen=True)
class TwinsTask:
    """A range of places."""

    out: Out
    number: int
    matches: Sheets
    twins: Sequence[Sheets]
    """Places that look like one of the range in all bits: those and this one, from all ranges of looks."""
    rule: NearRule

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        known = [self.number, self.matches.sha256, [one.sha256 for one in self.twins]]
        return part_path("twins", [*known, repr(self.rule)])


def with_twins(task: TwinsTask) -> MadePart:
    """What is left out, and what looks the same with it; a table for each part of the listing that has the match."""
    rule, node = task.rule, task.out.node
    matches = task.matches.read(node, 0)
    twins = pa.concat_tables(read_each(node, ((one, task.number) for one in task.twins)))
    first, places = (column.to_numpy() for column in twins.columns)
    first, places = first[places >= rule.given], places[places >= rule.given]
    left_out, match, *bits = (column.to_numpy() for column in matches.columns)
    row = np.searchsorted(left_out, first)
    fares = np.zeros(len(first), dtype=bool)
    fares[row < len(left_out)] = left_out[row[row < len(left_out)]] == first[row < len(left_out)]
    same = [first.copy(), *(np.zeros(len(first), np.uint8) for _ in bits)]
    for column, own in zip(same, (match, *bits), strict=True):
        column[fares] = own[row[fares]]
    columns = [places, *same]
    table = pa.concat_tables([matches, pa.table([pa.array(one) for one in columns], schema=MATCHES)])
    parts = rule.part_of(table.column("match").to_numpy())
    rows = write_sheets(task.out, f"{task.path}.rows", apart(table, parts, rule.parts + 1))
    return finish(task, {}, rows=rows)
