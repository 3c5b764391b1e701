"""The lines of a csv or jsonl file of labels: which image each names, and which classes. No torch.

Reads what spreadsheets, databases and other tools write. Knows no folder: whether an image is there, its caller finds.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.listing import some
from vitpipe.stages.ingest.sources.class_names import class_name, split_lines
from vitpipe.stages.ingest.sources.text_file import read_text

SEPARATOR = ";"
"""Between several classes of one image."""
SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Of files of labels; any may be packed with gzip."""
_PATHS = (
    "path", "file_name", "filename", "file_path", "filepath", "file", "image_path", "image_file", "image_name",
    "image", "img_path", "img",
)  # fmt: skip
"""How others call the column of images; of several, only `path` is certain."""
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SEP = re.compile(r"sep=(.)\n?")
"""A first line by which spreadsheets tell each other the delimiter."""
_DO = "each line needs `path` and `label` (or `labels`)"


class LabelRow(NamedTuple):
    """One image with its classes, as a line says it."""

    line: int
    path: str
    labels: tuple[str, ...]
    several: bool
    """Whether it may have more than one."""
    columns: tuple[str, ...]
    """All that the line has."""


class _Columns(NamedTuple):
    """Which of a line's columns say what; None for one that it lacks."""

    path: str | None
    label: str | None
    labels: str | None


def label_rows(where: str) -> Iterator[LabelRow]:
    """The lines of a file. UsageError naming the line that does not fit."""
    text, kind = read_text(where), where.lower().removesuffix(".gz")
    if not kind.endswith(SUFFIXES):
        raise wrong(where, f"its name ends neither in {', '.join(SUFFIXES[:-1])} nor in {SUFFIXES[-1]}")
    rows = _json_rows(where, text) if kind.endswith(".jsonl") else _csv_rows(where, text)
    for line, fields in rows:
        yield _row(where, line, fields)


def wrong(where: str, found: str, do: str = _DO) -> UsageError:
    """The error of a file that does not fit."""
    return UsageError(f"read the labels {where}", found, do)


def _json_rows(where: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, row in enumerate(split_lines(text), 1):
        if row.strip():
            try:
                fields = json.loads(row)
            except ValueError as error:
                raise wrong(where, f"line {line} is not JSON: {error}") from error
            if not isinstance(fields, dict):
                raise wrong(where, f"line {line} is not an object")
            yield line, fields


def _csv_rows(where: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows by column. UsageError for a row with another number of fields than there are columns, and for odd quotes."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    begins = _SEP.match(text)
    first, text = (2, text[begins.end() :]) if begins else (1, text)
    delimiter, columns = _header(where, text, begins[1] if begins else None)
    reader, name = _reader(text, delimiter, columns), _DELIMITERS.get(delimiter, repr(delimiter))
    try:
        next(reader)
        line = reader.line_num + first
        for row in reader:
            if len(row) != len(columns) and any(row):
                found = f"line {line} has {len(row)} fields, and the file {len(columns)} columns"
                raise wrong(where, found, f'put text with a {name} in quotes, as "crane{delimiter} bird"')
            if any(row):  # a spreadsheet writes empty rows as delimiters alone
                yield line, dict(zip(columns, row, strict=True))
            line = reader.line_num + first
    except csv.Error as error:
        do = 'close each quote, and write one within quotes twice: "a ""b"" c"'
        raise wrong(where, f"the row that ends in line {reader.line_num + first - 1} is no csv: {error}", do) from error


def _header(where: str, text: str, delimiter: str | None) -> tuple[str, list[str]]:
    """The delimiter by which the first row names images and classes, a comma before others, and its columns."""
    read: dict[str, list[str]] = {}
    for one in delimiter or _DELIMITERS:
        try:
            columns = next(csv.reader(io.StringIO(text, newline=""), delimiter=one, strict=True), [])
        except csv.Error:  # told when rows are read
            continue
        read.setdefault(one, columns)
        found = _columns(where, tuple(columns))
        if found.path is not None and (found.label or found.labels):
            if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
                raise wrong(where, f"the columns {some(twice)} stand in it more than once", "give each column one name")
            return one, columns
    most = max(read.values(), key=len, default=[])
    raise wrong(where, f"its columns are {', '.join(most) or 'missing'}")


def _reader(text: str, delimiter: str, columns: Sequence[str]) -> Any:
    """Where the header has spaces behind its delimiters, rows may have them too, before quotes even."""
    spaced = any(name[:1] == " " for name in columns[1:])
    rows = io.StringIO(text, newline="")
    return csv.reader(rows, delimiter=delimiter, skipinitialspace=spaced, strict=True)


@lru_cache(maxsize=16)
def _columns(where: str, columns: tuple[str, ...]) -> _Columns:
    """By their names, as written before any other form of them. UsageError where two could be meant."""
    return _Columns(*(_column(where, columns, names) for names in (_PATHS, ("label",), ("labels",))))


def _column(where: str, columns: tuple[str, ...], names: Sequence[str]) -> str | None:
    ours = names[0]
    folded = {name: re.sub(r"[\s-]+", "_", name.strip().casefold()) for name in columns}
    exact = [name for name in columns if name == ours]
    for meant in (exact, *([name for name in columns if folded[name] in wanted] for wanted in (names[:1], names))):
        if len(set(meant)) > 1:
            raise wrong(where, f"the columns {some(meant)} may each be meant as {ours!r}", f"call one of them {ours}")
        if meant:
            return meant[0]
    return None


def _row(where: str, line: int, fields: Mapping[str, Any]) -> LabelRow:
    has = _columns(where, tuple(fields))
    several, alone = (fields.get(name) if name is not None else None for name in (has.labels, has.label))
    many = several is not None
    given = several if many else alone
    try:
        if many and isinstance(given, str):
            given = _split(given)
        labels = (given or [None]) if isinstance(given, list) else [given]
        names = tuple(dict.fromkeys(class_name(label) for label in labels))
        if many and alone not in (None, "") and class_name(alone) not in names:
            raise ValueError(f"the label {alone!r}, which is none of its labels {some(names)}")
    except ValueError as error:
        raise wrong(where, f"line {line} has {error}", "a class is a name, or a whole number from 0 on") from None
    path = fields[has.path] if has.path is not None else None
    if not isinstance(path, str) or not path.strip():
        raise wrong(where, f"line {line} has no path")
    return LabelRow(line, path, names, many, tuple(fields))


def _split(text: str) -> list[Any]:
    """`cat;dog`, or a JSON list. ValueError for a list in another form: it would be one class of that name."""
    if not (text.strip().startswith("[") and text.strip().endswith("]")):
        return list(text.split(SEPARATOR))
    try:
        return list(json.loads(text))
    except ValueError:
        raise ValueError(f"the labels {text!r}: neither JSON nor parted by {SEPARATOR!r}") from None
