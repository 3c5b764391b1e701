"""A csv or jsonl file that says which classes each image has. No torch."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import NotFound, StorageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.ingest.listing import Item, Items, Listing, some
from vitpipe.stages.ingest.sources.class_names import class_name, sorted_classes, split_lines
from vitpipe.stages.ingest.sources.folder_layout import unread_formats
from vitpipe.stages.ingest.sources.vocabulary import mixed_names, odd_names

SEPARATOR = ";"
OF_SPLITS = frozenset(("split", "splits", "subset", "partition", "fold"))
"""Columns by which people mean a split."""


def read_labels(where: str, root: str, sizes: Mapping[str, int], notes: tuple[str, ...]) -> Listing:
    """Join the file with the images found below `root` (`sizes` by name). UsageError for what does not fit."""
    rows: dict[str, tuple[str, ...]] = {}
    several, columns = False, set[str]()
    for line, fields in _rows(where):
        columns.update(fields)
        path, labels, many = _row(where, line, fields)
        if path in rows:
            raise _wrong(where, f"line {line}: {path!r} is listed twice")
        rows[path] = labels
        several = several or many
    absent = sorted(rows.keys() - sizes.keys())
    if absent:
        raise _wrong(where, f"{len(absent)} of {len(rows)} listed images are not below {root}: {some(absent)}")
    if not rows:
        raise _wrong(where, "it lists no images")
    unlisted = len(sizes) - len(rows)
    if unlisted:
        notes = (*notes, f"{unlisted} images without a line in {where} were left aside")
    if splits := sorted(name for name in columns if name.casefold() in OF_SPLITS):
        notes = (*notes, f"the column {splits[0]!r} of {where} is not read: `splits` of the ingest cuts the images")
    notes = (*notes, *unread_formats(rows))
    classes = sorted_classes({label for labels in rows.values() for label in labels})
    notes = (*notes, *mixed_names(where, classes), *odd_names(classes))
    number = {name: place for place, name in enumerate(classes)}
    items = Items(
        Item(path, tuple(sorted(number[label] for label in labels)), None, sizes[path])
        for path, labels in sorted(rows.items())
    )
    return Listing(items, classes, several, notes)


def _rows(where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = read_text(where)
    if where.endswith(".jsonl"):
        for line, row in enumerate(split_lines(text), 1):
            if row.strip():
                yield line, _json(where, line, row)
    elif where.endswith(".csv"):
        yield from _csv_rows(where, text)
    else:
        raise _wrong(where, "its name ends neither in .csv nor in .jsonl")


def _csv_rows(where: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows by column. UsageError for a row with another number of fields than there are columns, and for odd quotes."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        if "path" not in columns or not {"label", "labels"} & set(columns):
            raise _wrong(where, f"its columns are {', '.join(columns) or 'missing'}")
        if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
            raise _wrong(where, f"the columns {some(twice)} stand in it more than once", "give each column one name")
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(columns):
                found = f"line {line} has {len(row)} fields, and the file {len(columns)} columns"
                raise _wrong(where, found, 'put text with a comma in quotes, as "crane, bird"')
            if row:
                yield line, dict(zip(columns, row, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        do = 'close each quote, and write one within quotes twice: "a ""b"" c"'
        raise _wrong(where, f"the row that ends in line {reader.line_num} is no csv: {error}", do) from error


def read_text(where: str) -> str:
    """A small text file, local or on S3. UsageError when it is not there or no text; StorageError when unreadable."""
    try:
        if "://" in where:
            folder, _, name = where.rpartition("/")
            return open_store(folder).read(name).decode("utf-8-sig")
        return Path(where).read_text(encoding="utf-8-sig")
    except NotFound as error:
        raise UsageError(f"read {where}", "no object of that name", "put it back, or correct its name") from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(f"read {where}", str(error.strerror), "put it back, or correct its name") from error
    except OSError as error:
        raise StorageError(f"read {where}", error.strerror or str(error), "let it be read, then run again") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"read {where}", f"it is not UTF-8: {error}", "save it as UTF-8") from error


def _json(where: str, line: int, row: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(row)
    except ValueError as error:
        raise _wrong(where, f"line {line} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _wrong(where, f"line {line} is not an object")
    return fields


def _row(where: str, line: int, fields: Mapping[str, Any]) -> tuple[str, tuple[str, ...], bool]:
    """Path, class names, and whether the row may have several."""
    many = fields.get("labels") is not None
    given = fields["labels"] if many else fields.get("label")
    if many and isinstance(given, str):
        given = given.split(SEPARATOR)
    labels = (given or [None]) if isinstance(given, list) else [given]
    try:
        names = tuple(dict.fromkeys(class_name(label) for label in labels))
        alone = fields.get("label") if many else None
        if alone not in (None, "") and class_name(alone) not in names:
            raise ValueError(f"the label {alone!r}, which is none of its labels {some(names)}")
    except ValueError as error:
        raise _wrong(where, f"line {line} has {error}") from None
    path = fields.get("path")
    if not isinstance(path, str) or not path:
        raise _wrong(where, f"line {line} has no path")
    return path, names, many


def _wrong(where: str, found: str, do: str = "each line needs `path` and `label` (or `labels`)") -> UsageError:
    return UsageError(f"read the labels {where}", found, do)
