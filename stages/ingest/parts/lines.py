"""Lines of a file that is in the order of names, made in pieces by tasks and put together without holding them.

Knows nothing of what the lines say. No torch.
"""

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pyarrow as pa

from vitpipe.infra.storage.store import Store
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.parts.rows import packed, sorted_rows
from vitpipe.stages.ingest.parts.sheets import Sheets, cut

TOGETHER = 256
"""Lines in a table: what is held of each of a thousand pieces while they are put together."""
_SCHEMA = pa.schema([("name", pa.binary()), ("line", pa.binary())])
Line = tuple[bytes, bytes]
"""A name as `rows.packed` has it, and what is said of it."""


def line(name: str, row: Mapping[str, Any]) -> Line:
    """One line of JSON."""
    return packed(name), json.dumps(row).encode() + b"\n"


def line_tables(lines: Iterable[Line]) -> Iterator[Any]:
    """Tables of lines, sorted, for `sheets.write_sheets`."""
    listed = list(lines)
    columns = {"name": [name for name, _ in listed], "line": [text for _, text in listed]}
    return cut(sorted_rows(pa.table(columns, schema=_SCHEMA), ["name"]), TOGETHER)


def lines_of(node: Store, pieces: Iterable[Sheets]) -> Iterator[Line]:
    """All lines of pieces one after another, a table at a time: a thousand such may be put together."""
    for table in (sheets.read(node, number) for sheets in pieces for number in range(sheets.count)):
        yield from zip(table.column("name").to_pylist(), table.column("line").to_pylist(), strict=True)


def merged(several: Sequence[Iterable[Line]]) -> Iterator[bytes]:
    """The lines of all that are sorted, in the order of the names."""
    return map(itemgetter(1), heapq.merge(*several, key=itemgetter(0)))


def put_streamed(ctx: StageContext, path: str, write: Callable[[IO[bytes]], None]) -> File:
    """A file of the artifact, by way of the local disk."""
    ctx.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=ctx.scratch) as made:
        local = Path(made, path.rpartition("/")[2])
        with local.open("xb") as file:
            write(file)
        return ctx.out.upload(local, path)


def put_lines(ctx: StageContext, path: str, lines: Iterable[bytes]) -> File:
    """Lines as a file of the artifact."""
    return put_streamed(ctx, path, lambda file: file.writelines(lines))
