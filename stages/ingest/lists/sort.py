"""The images of all files in the order of their names: spread over ranges of names, then each range sorted. No torch.

A task holds one range, about `lists.listed.PART_ROWS` images.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vitpipe.infra.storage.store import Store
from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.listing import item_texts
from vitpipe.stages.ingest.lists.part_of_source import PartOfSource
from vitpipe.stages.ingest.lists.raw import NameSample, RawFile
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import (
    SHEET_ROWS,
    item_rows,
    items_of,
    joined_rows,
    names_of,
    packed,
    sorted_rows,
    unpacked,
)
from vitpipe.stages.ingest.parts.sheets import Sheets, cut, read_each, write_sheets
from vitpipe.stages.ingest.sources.class_names import Placing, told_apart
from vitpipe.stages.ingest.sources.opened import chunk_stops


@dataclass(frozen=True)
class Piece:
    """Some tables of a file of rows."""

    sheets: Sheets
    numbers: range
    placing: Placing | None = None
    """None where labels and names are right already."""

    @classmethod
    def whole(cls, sheets: Sheets) -> "Piece":
        """All tables of a file whose rows are right already."""
        return cls(sheets, range(sheets.count))

    def made_from(self) -> list[Any]:
        """What tells it from others."""
        return [self.sheets.sha256, self.numbers.start, self.numbers.stop, repr(self.placing)]

    def placed(self, table: Any) -> Any:
        """Rows of one of the tables as they stand in the listing of all."""
        return table if self.placing is None else item_rows(map(self.placing, items_of(table)))


def groups(files: Sequence[RawFile], most: int) -> Iterator[list[Piece]]:
    """All tables in groups of about `most` rows."""
    group, rows = list[Piece](), 0
    for file in files:
        each = max(1, most // SHEET_ROWS)
        for start in range(0, file.rows.count, each):
            numbers = range(start, min(start + each, file.rows.count))
            more = min(file.rows.rows, len(numbers) * SHEET_ROWS)
            if group and rows + more > most:
                yield group
                group, rows = [], 0
            group.append(Piece(file.rows, numbers, file.placing))
            rows += more
    if group:
        yield group


def borders(files: Sequence[RawFile], count: int) -> list[str]:
    """Names that cut all into at most `count` ranges of about as many images: each begins a range."""
    samples = sorted((_name(file, one), one.rows) for file in files for one in file.samples)
    ends = np.cumsum([rows for _, rows in samples])
    wanted = [ends[-1] * place / count for place in range(1, count)] if samples else []
    return sorted({samples[int(np.searchsorted(ends, place, side="right"))][0] for place in wanted})


def _name(file: RawFile, sample: NameSample) -> str:
    return sample.item.name if file.placing is None else file.placing(sample.item).name


def _rows(node: Store, pieces: Sequence[Piece]) -> Any:
    """All of the pieces' rows, end to end."""
    wanted = [(piece, number) for piece in pieces for number in piece.numbers]
    tables = read_each(node, ((piece.sheets, number) for piece, number in wanted))
    return joined_rows(piece.placed(table) for (piece, _), table in zip(wanted, tables, strict=True))


@dataclass(frozen=True)
class SpreadTask:
    """Rows to put into ranges of names."""

    out: Out
    pieces: Sequence[Piece]
    borders: tuple[str, ...]

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("spread", [[piece.made_from() for piece in self.pieces], self.borders])


def spread(task: SpreadTask) -> MadePart:
    """One table for each range."""
    table = _rows(task.out.node, task.pieces)
    edges = [packed(border) for border in task.borders]
    of_each = np.array([bisect_right(edges, name) for name in table.column("name").to_pylist()], dtype=np.int64)
    return finish(task, {}, rows=write_sheets(task.out, f"{task.path}.rows", apart(table, of_each, len(edges) + 1)))


def apart(table: Any, of_each: npt.NDArray[np.integer[Any]], count: int) -> Iterator[Any]:
    """A table for each number below `count`, of the rows that have it, in their order."""
    order = np.argsort(of_each, kind="stable")
    starts = np.searchsorted(of_each[order], np.arange(count + 1))
    taken = table.take(pa.array(order))
    return (taken.slice(start, stop - start) for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist()))  # noqa: B905  # as long


@dataclass(frozen=True)
class SortTask:
    """One range of names."""

    out: Out
    number: int
    pieces: Sequence[Piece]
    part: PartOfSource
    """Those that are wanted, by the names that they have in the end."""
    may_repeat: bool
    upper: str | None
    """Where the next range begins."""
    chunk_images: int
    piece_depth: int
    """As `SourceOfFiles.piece`."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        how = [repr(self.part), self.may_repeat, self.upper, self.chunk_images, self.piece_depth]
        return part_path("listing", [self.number, [piece.made_from() for piece in self.pieces], how])


def sort(task: SortTask) -> MadePart:
    """The range in order; where chunks of it end, and its text for the digest of the listing."""
    table = sorted_rows(_rows(task.out.node, task.pieces), ["name"])
    if task.may_repeat:
        names = table.column("name").to_numpy(zero_copy_only=False)
        if (names[1:] == names[:-1]).any():
            table = sorted_rows(item_rows(told_apart(items_of(table))), ["name"])
    if task.part != PartOfSource():
        table = table.filter(pa.array([task.part.keeps(name) for name in names_of(table)], pa.bool_()))
    last = unpacked(table.column("name")[-1].as_py()) if table.num_rows else ""
    facts = {
        "stops": chunk_stops(_begins(table, task.piece_depth), table.num_rows, task.chunk_images),
        "splits": [one if one is None else unpacked(one) for one in table.column("split").unique().to_pylist()],
        "strays": task.upper is not None and last >= task.upper,
    }
    rows = write_sheets(task.out, f"{task.path}.rows", cut(table, SHEET_ROWS))
    texts = write_sheets(task.out, f"{task.path}.texts", [_text(table)])
    return finish(task, facts, rows=rows, texts=texts)


def _text(table: Any) -> Any:
    """A table of one row."""
    packer = zlib.compressobj(1)
    data = [packer.compress(_texts(piece)) for piece in cut(table, SHEET_ROWS)]
    return pa.table({"text": pa.array([b"".join((*data, packer.flush()))], pa.large_binary())})


def _texts(table: Any) -> bytes:
    labels, sizes = table.column("labels").to_pylist(), table.column("size").to_pylist()
    splits = [None if one is None else unpacked(one) for one in table.column("split").to_pylist()]
    faults = ["" if one is None else unpacked(one) for one in table.column("fault").to_pylist()]
    return item_texts(zip(names_of(table), labels, splits, sizes, strict=True), faults)


def text_of(table: Any) -> bytes:
    """What `sort` wrote."""
    return zlib.decompress(table.column("text")[0].as_py())


def _begins(table: Any, depth: int) -> npt.NDArray[np.int64]:
    """The first row of each piece that is read as one."""
    differs = np.ones(table.num_rows, dtype=bool)
    if depth and table.num_rows:
        places = table.column("place").to_pylist()
        differs[1:] = [one[:depth] != other[:depth] for one, other in zip(places[1:], places)]  # noqa: B905  # one less
    return np.flatnonzero(differs)
