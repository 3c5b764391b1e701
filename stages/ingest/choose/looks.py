"""How images look, brought together by looks: of equal ones the first, and its views where near ones meet. No torch.

A task has a range of looks, from all bins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.choose.crowd import Words
from vitpipe.stages.ingest.choose.hamming import Places
from vitpipe.stages.ingest.choose.keep import KeepTask, are_train, without_duplicates
from vitpipe.stages.ingest.choose.near import NearRule
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each, write_sheets

WORDS = LIKENESS_BYTES // 8
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
_LOOKS = pa.schema([("place", pa.int64()), ("looks", pa.binary())])
VIEWS = pa.schema([("place", pa.int64()), ("view", pa.int32()), ("look", pa.binary(LIKENESS_BYTES))])
"""Views 0 are of the whole image."""


@dataclass(frozen=True)
class LooksTask:
    """A bin of contents."""

    keep: KeepTask
    rule: NearRule

    @property
    def out(self) -> Out:
        """As `made.PartTask` has it."""
        return self.keep.out

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("looks", [self.keep.path, repr(self.rule)])


def looks_left(task: LooksTask) -> MadePart:
    """Places and looks of the images that exact copies leave, a table for each range of looks."""
    images, _ = without_duplicates(task.keep)
    images = images.filter(images.column("looks").is_valid())
    is_train = are_train(images).to_numpy().astype(bool)
    places = task.rule.places(images.column("number").to_numpy(), is_train)
    table = pa.table([pa.array(places), images.column("looks")], schema=_LOOKS).combine_chunks()
    words, counts = _words(table.column("looks"))
    ranges = _ranges(words[np.cumsum(counts) - counts], task.rule.ranges)
    rows = write_sheets(task.out, f"{task.path}.rows", apart(table, ranges, task.rule.ranges))
    return finish(task, {}, rows=rows)


@dataclass(frozen=True)
class DistinctTask:
    """A range of looks."""

    out: Out
    number: int
    looks: Sequence[Sheets]
    """Of all bins."""
    excluded: Sequence[Sheets]
    """The first places, in order."""
    rule: NearRule

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        known = [[one.sha256 for one in self.looks], [one.sha256 for one in self.excluded]]
        return part_path("distinct", [self.number, *known, repr(self.rule)])


def distinct(task: DistinctTask) -> MadePart:
    """Those that look like one before them in all bits; of the others each view in the cells that it belongs to.

    A file for each group has two tables for each cell: whole images, and other views.
    """
    rule, out = task.rule, task.out
    places, words, starts, counts = _in_order(task)
    whole = np.ascontiguousarray(words[starts]).view([("", np.uint64)] * WORDS).ravel()
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    of = first[which]
    twins = np.flatnonzero(of != np.arange(len(of)))
    pairs = pa.table({"first": places[of[twins]], "place": places[twins]})
    ranges = rule.range_of(places[of[twins]])
    files = {"twins": write_sheets(out, f"{task.path}.twins", apart(pairs, ranges, rule.ranges))}
    own = np.sort(first)
    row = np.repeat(own, counts[own])
    view = np.arange(len(row)) - np.repeat(np.cumsum(counts[own]) - counts[own], counts[own])
    looks = words[starts[row] + view]
    del words, whole  # of so many bytes none is held twice
    table, first_looks = view_rows(places[row], view, looks), looks[:, 0].copy()
    del looks
    for group in range(rule.groups):
        cells = 2 * rule.cell_of(first_looks, group) + (view > 0)
        files[f"group{group}"] = write_sheets(out, f"{task.path}.group{group}", apart(table, cells, 2 * rule.cells))
    return finish(task, {}, **files)


def _in_order(task: DistinctTask) -> tuple[Places, Words, Places, Places]:
    """Places, ascending; all looks; of each place where its own begin, and how many."""
    node = task.out.node
    tables = [_LOOKS.empty_table(), *read_each(node, ((one, task.number) for one in task.looks))]
    held, place = list[Any](), 0
    for table in read_each(node, ((one, 0) for one in task.excluded)):
        wanted = np.flatnonzero(_ranges(words_of(table.column("look")), task.rule.ranges) == task.number)
        looks = table.column("look").take(pa.array(wanted)).cast(pa.binary())
        held.append(pa.table([pa.array(place + wanted), looks], schema=_LOOKS))
        place += table.num_rows
    table = pa.concat_tables([*held, *tables]).combine_chunks()
    places = table.column("place").to_numpy()
    words, counts = _words(table.column("looks"))
    order = np.argsort(places)
    return places[order], words, (np.cumsum(counts) - counts)[order], counts[order]


def view_rows(places: Places, views: Places, looks: Words) -> Any:
    """A table of views."""
    data = pa.py_buffer(np.ascontiguousarray(looks.astype(">u8")))
    columns = [pa.array(places), pa.array(views.astype(np.int32)), None]
    columns[2] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(LIKENESS_BYTES), len(looks), [None, data])
    return pa.table(columns, schema=VIEWS)


def views_of(tables: Iterator[Any]) -> Iterator[tuple[Places, Places, Words]]:
    """Place, number and look of the views in each table."""
    for table in tables:
        yield table.column("place").to_numpy(), table.column("view").to_numpy(), words_of(table.column("look"))


def words_of(column: Any) -> Words:
    """Looks of one view each."""
    array = column.combine_chunks()
    data = np.frombuffer(
        array.buffers()[1] or b"", dtype=">u8", count=WORDS * len(array), offset=LIKENESS_BYTES * array.offset
    )
    return data.astype(np.uint64).reshape(-1, WORDS)


def _words(column: Any) -> tuple[Words, Places]:
    """All views of a column of looks, end to end, and how many each image has."""
    array = column.combine_chunks()
    if not len(array):
        return np.empty((0, WORDS), dtype=np.uint64), np.empty(0, dtype=np.int64)
    _, ends, data = array.buffers()
    ends = np.frombuffer(ends, dtype=np.int32, count=len(array) + 1, offset=4 * array.offset).astype(np.int64)
    words = np.frombuffer(data, dtype=">u8", count=int(ends[-1] - ends[0]) // 8, offset=int(ends[0]))
    return words.astype(np.uint64).reshape(-1, WORDS), np.diff(ends) // LIKENESS_BYTES


def _ranges(looks: Words, count: int) -> Places:
    """The range of each whole look: equal ones are in one."""
    mixed = (looks * _MIX).sum(axis=1, dtype=np.uint64) >> np.uint64(32)
    return np.asarray(mixed * np.uint64(count) >> np.uint64(32), dtype=np.int64)
