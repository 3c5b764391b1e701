"""Arrow tables in the store, several to a file: each is read by itself and checked by its own digest. No torch.

Knows neither images nor who made them. A file ends with where each table is, so that one is found by one small read.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.storage.store import Store
from vitpipe.stages.contract import Out

_PLACE = struct.Struct("<QQ32s")
"""First byte, bytes and SHA-256 of a table."""
_DO = "run the same command again: what is known of the images is then found out anew"


@dataclass(frozen=True, slots=True)
class Sheets:
    """A file of tables, end to end."""

    at: str
    """Relative to the node's folder."""
    count: int
    rows: int
    """Of all tables together."""
    places_at: int
    """The byte at which it says where each is."""
    sha256: str
    """Of all that it says there: two files of one digest hold the same."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `of`."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Sheets":
        """From what `to_json` gave."""
        return cls(**plain)

    def read(self, node: Store, number: int) -> Any:
        """One table. IntegrityError when it is not what was written; NotFound."""
        place = node.read(self.at, self.places_at + number * _PLACE.size, _PLACE.size)
        start, length, sha256 = _PLACE.unpack(place) if len(place) == _PLACE.size else (0, 0, b"")
        data = node.read(self.at, start, length) if length else b""
        if hashlib.sha256(data).digest() != sha256:
            asked = f"read table {number} of {node.uri}/{self.at}"
            raise IntegrityError(asked, "it is damaged: its SHA-256 is not the one that was written", _DO)
        return pa.ipc.open_stream(data).read_all()

    def all(self, node: Store) -> Iterator[Any]:
        """All tables, in order."""
        return read_each(node, ((self, number) for number in range(self.count)))


def read_each(node: Store, wanted: Iterable[tuple[Sheets, int]]) -> Iterator[Any]:
    """Tables of many files, in order; of a server several at once. Errors as `Sheets.read`."""
    if node.uri.startswith("file://"):
        return (sheets.read(node, number) for sheets, number in wanted)
    return answers(lambda one: one[0].read(node, one[1]), wanted)


def write_sheets(out: Out, path: str, tables: Iterable[Any]) -> Sheets:
    """Write all tables into one file of this attempt: the same bytes for the same tables."""
    data, places, rows, size = list[Any](), list[bytes](), 0, 0
    for table in tables:
        sheet = _packed(table)
        places.append(_PLACE.pack(size, len(sheet), hashlib.sha256(sheet).digest()))
        data.append(sheet)
        rows, size = rows + table.num_rows, size + len(sheet)
    listed = b"".join(places)
    file = out.put(path, b"".join((*data, listed)))
    return Sheets(file.at, len(places), rows, size, hashlib.sha256(listed).hexdigest())


def cut(table: Any, rows: int) -> Iterator[Any]:
    """A table in pieces of so many rows, at least one."""
    return (table.slice(start, rows) for start in range(0, max(1, table.num_rows), rows))


def _packed(table: Any) -> Any:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue()
