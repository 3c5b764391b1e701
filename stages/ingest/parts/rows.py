"""Images of a listing as rows of an Arrow table, and back. No torch.

Names are kept as bytes in which lone surrogates, as in undecodable names of files, stand for themselves: rows sorted
by these bytes are in the order of the names.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute  # as `pa.compute`

from vitpipe.infra.storage.store import Store
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each

SCHEMA = pa.schema(
    [
        ("name", pa.binary()),
        ("labels", pa.list_(pa.int32())),
        ("split", pa.binary()),
        ("size", pa.int64()),
        ("place", pa.list_(pa.int64())),
        ("fault", pa.binary()),
        ("mark", pa.int64()),
    ]
)
"""As in `listing.Item`; no split and no fault are nulls."""
SHEET_ROWS = 4096
"""Rows of a table that is read in parts: what a task takes in at least."""


def packed(text: str) -> bytes:
    """A name or a reason as a table has it."""
    return text.encode("utf-8", "surrogatepass")


def unpacked(data: bytes) -> str:
    """What `packed` gave, as it was."""
    return data.decode("utf-8", "surrogatepass")


def item_rows(items: Iterable[Item]) -> Any:
    """A table of these images."""
    listed = list(items)
    columns = {
        "name": [packed(item.name) for item in listed],
        "labels": [item.labels for item in listed],
        "split": [None if item.split is None else packed(item.split) for item in listed],
        "size": [item.size for item in listed],
        "place": [item.place for item in listed],
        "fault": [packed(item.fault) if item.fault else None for item in listed],
        "mark": [item.mark for item in listed],
    }
    return pa.table(columns, schema=SCHEMA)


def items_of(table: Any) -> list[Item]:
    """The images of a table that has all columns of a listing."""
    columns = (table.column(name).to_pylist() for name in SCHEMA.names)
    return [
        Item(
            unpacked(name),
            tuple(labels),
            None if split is None else unpacked(split),
            size,
            tuple(place),
            "" if fault is None else unpacked(fault),
            mark,
        )
        for name, labels, split, size, place, fault, mark in zip(*columns, strict=True)
    ]


def names_of(table: Any) -> list[str]:
    """The names alone."""
    return [unpacked(name) for name in table.column("name").to_pylist()]


def joined_rows(tables: Iterable[Any], schema: Any = SCHEMA) -> Any:
    """Tables end to end."""
    return pa.concat_tables([schema.empty_table(), *tables])


def sorted_rows(table: Any, columns: Sequence[str]) -> Any:
    """Sorted by some columns, ascending; rows that are equal in them stay as they were."""
    order = pa.compute.sort_indices(table, sort_keys=[(name, "ascending") for name in columns])
    return table.take(order)


def rows_between(sheets: Sheets, node: Store, start: int, stop: int) -> Any:
    """Some rows of a file whose tables have `SHEET_ROWS` rows, the last one fewer."""
    each = SHEET_ROWS
    first, last = start // each, -(-stop // each)
    table = pa.concat_tables(read_each(node, ((sheets, number) for number in range(first, max(last, first + 1)))))
    return table.slice(start - first * each, stop - start)
