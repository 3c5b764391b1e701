"""Where looks meet that may be near: pairs that are, and which images are near too many others for pairs. No torch.

A task has a cell: the views whose first look has some value in one group of bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.images.keys import scattered
from vitpipe.stages.ingest.choose import near
from vitpipe.stages.ingest.choose.crowd import Words
from vitpipe.stages.ingest.choose.hamming import Hashes, Lookup, Places, near_pairs
from vitpipe.stages.ingest.choose.looks import VIEWS, view_rows, views_of
from vitpipe.stages.ingest.choose.near import NearRule
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each, write_sheets

TOGETHER = 131_072
"""Views that are compared at once, about."""
PAIRS = pa.schema([("later", pa.int64()), ("earlier", pa.int64()), ("distance", pa.uint8()), ("second", pa.uint8())])
Mask = npt.NDArray[np.bool_]


class Views(NamedTuple):
    """Some views: of which places, and how they look."""

    places: Places
    numbers: Places
    looks: Words

    @classmethod
    def joined(cls, several: Sequence["Views"]) -> "Views":
        """End to end."""
        places, numbers, looks = zip(*several, strict=True)
        return cls(np.concatenate(places), np.concatenate(numbers), np.concatenate(looks))

    def where(self, which: Mask | Places) -> "Views":
        """Some of them."""
        return Views(self.places[which], self.numbers[which], self.looks[which])


@dataclass(frozen=True)
class CellTask:
    """A cell of a group."""

    out: Out
    group: int
    number: int
    views: Sequence[Sheets]
    """What `looks.distinct` left for the group."""
    rule: NearRule

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        known = [self.group, self.number, [one.sha256 for one in self.views], repr(self.rule)]
        return part_path("met", [*known, near.CROWD])


class _Cell:
    """What a task holds: all images of the cell that are there whole; other views go by."""

    def __init__(self, task: CellTask) -> None:
        self._task, rule = task, task.rule
        self.cell = rule.cell(task.group, task.number)
        views = Views.joined([*self._tables(2 * task.number), Views(*next(views_of(iter([VIEWS.empty_table()]))))])
        self.whole = views.where(np.argsort(scattered(views.places)))

    def hashes(self, views: Views) -> Hashes:
        """First looks as they are compared."""
        return self._task.rule.turned(views.looks[:, 0], self._task.group)

    def lookup(self, which: Mask | slice) -> Lookup:
        """Some of the whole ones."""
        return Lookup(self.hashes(self.whole)[which], self._task.rule.most, self.cell)

    def others(self) -> Iterator[Views]:
        """Views that are not whole, many at a time."""
        held, count = list[Views](), 0
        for one in self._tables(2 * self._task.number + 1):
            held.append(one)
            count += len(one.places)
            if count >= TOGETHER:
                yield Views.joined(held)
                held, count = [], 0
        if count:
            yield Views.joined(held)

    def _tables(self, number: int) -> Iterator[Views]:
        tables = read_each(self._task.out.node, ((one, number) for one in self._task.views))
        return (Views(*one) for one in views_of(tables))


def meet(task: CellTask) -> MadePart:
    """Pairs that are alike by both looks, a table for each range of the later ones; places with crowded views.

    A view is crowded that is near too many whole images of the cell; of two such no pair is looked for. Which view is
    depends on its bucket alone, and all of a bucket is in one cell, whatever the number of cells.
    """
    rule, out, crowded = task.rule, task.out, list[Places]()
    cell = _Cell(task)
    table = pa.concat_tables([PAIRS.empty_table(), *(_pairs(*pair, rule) for pair in _near(cell, rule.most, crowded))])
    ranges = rule.range_of(table.column("later").to_numpy())
    return finish(
        task,
        {},
        pairs=write_sheets(out, f"{task.path}.pairs", apart(table, ranges, rule.ranges)),
        crowded=write_sheets(out, f"{task.path}.crowded", [_listed(crowded)]),
    )


def _listed(places: Sequence[Places]) -> Any:
    return pa.table({"place": np.unique(np.concatenate([np.empty(0, np.int64), *places]))})


_Near = tuple[Views, Views, Places]
"""Whole images, views of others beside them, and the bits in which their first looks differ."""


def _near(cell: _Cell, most: int, crowded: list[Places]) -> Iterator[_Near]:
    """Pairs of one whole and one view, not both crowded; of the wholes among themselves each pair once.

    Places with crowded views are added to `crowded`.
    """
    lookup = cell.lookup(slice(None))
    in_crowd = _crowded(lookup, cell.hashes(cell.whole))
    some, crowds = cell.whole.where(~in_crowd), cell.whole.where(in_crowd)
    crowded.append(crowds.places)
    for first, second, distance in near_pairs(cell.hashes(some), most, cell.cell):
        yield some.where(first), some.where(second), distance
    beside_some, beside_crowd = (cell.lookup(~in_crowd), cell.lookup(in_crowd)) if in_crowd.any() else (lookup, None)
    yield from _asked(cell, some, beside_some, crowds)
    for views in cell.others():
        are_crowded = _crowded(lookup, cell.hashes(views))
        crowded.append(views.places[are_crowded])
        yield from _asked(cell, some, beside_some, views)
        if beside_crowd is not None:
            yield from _asked(cell, crowds, beside_crowd, views.where(~are_crowded))


def _crowded(lookup: Lookup, hashes: Hashes) -> Mask:
    """Which are near too many: of those alone it is reckoned that are compared with so many."""
    many = np.flatnonzero(lookup.compared_with(hashes) > near.CROWD)
    found = np.zeros(len(hashes), dtype=bool)
    found[many[lookup.likely_near(hashes[many]) > near.CROWD]] = True
    return found


def _asked(cell: _Cell, whole: Views, lookup: Lookup, views: Views) -> Iterator[_Near]:
    for first, second, distance in lookup.near(cell.hashes(views)):
        yield whole.where(first), views.where(second), distance


def _pairs(whole: Views, views: Views, distance: Places, rule: NearRule) -> Any:
    """Those that are alike by the second look too, and of which the later may be left out."""
    second = np.bitwise_count(whole.looks[:, 1:] ^ views.looks[:, 1:]).sum(axis=1, dtype=np.int64)
    later, earlier = np.maximum(whole.places, views.places), np.minimum(whole.places, views.places)
    sure = (second <= near.SECOND_MOST) & (later != earlier) & (later >= rule.given)
    columns = [later, earlier, distance.astype(np.uint8), second.astype(np.uint8)]
    return pa.table([pa.array(column[sure]) for column in columns], schema=PAIRS)


@dataclass(frozen=True)
class CrowdTask:
    """All cells."""

    out: Out
    crowded: Sequence[Sheets]

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("crowd", [one.sha256 for one in self.crowded])


def all_crowded(task: CrowdTask) -> MadePart:
    """The places of all that are crowded anywhere."""
    tables = read_each(task.out.node, ((one, 0) for one in task.crowded))
    table = _listed([one.column("place").to_numpy() for one in tables])
    return finish(task, {}, places=write_sheets(task.out, f"{task.path}.places", [table]))


@dataclass(frozen=True)
class CrowdViewsTask:
    """A cell of the first group, where each view is once."""

    cell: CellTask
    crowd: Sheets

    @property
    def out(self) -> Out:
        """As `made.PartTask` has it."""
        return self.cell.out

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("crowd-views", [self.cell.path, self.crowd.sha256])


def crowd_views(task: CrowdViewsTask) -> MadePart:
    """All views of crowded images."""
    cell, crowd = _Cell(task.cell), task.crowd.read(task.out.node, 0).column("place").to_numpy()
    some = [one.where(np.isin(one.places, crowd)) for one in (cell.whole, *cell.others())]
    views = write_sheets(task.out, f"{task.path}.views", [view_rows(*Views.joined(some))])
    return finish(task, {}, views=views)
