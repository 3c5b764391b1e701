"""Which columns of a parquet file hold images and labels, nested ones too, and what they may be. No torch.

Knows schemas and values as pyarrow gives them; reads nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.listing import some
from vitpipe.stages.ingest.sources.patterns import SourceFile

_BYTES = ("binary", "large_binary", "binary_view", "fixed_size_binary")
_TEXTS = ("string", "large_string", "string_view")
_LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
_NUMBERS = ("int", "uint", "float", "double", "halffloat", "decimal")


@dataclass(frozen=True)
class Column:
    """A column, or a field within one."""

    path: tuple[str, ...]
    """Names from the outermost column inward."""
    kind: Any
    """Type of what it holds, for each row: pyarrow's."""
    is_list: bool
    """Whether a row has a list of it."""
    crosses_list: bool
    """Whether a list lies between the outermost column and it."""

    @property
    def read(self) -> str:
        """What pyarrow is asked for: no more than this field, where it can be had alone."""
        return self.path[0] if self.crosses_list else ".".join(self.path)

    @property
    def has_numbers(self) -> bool:
        """Whether it can hold nothing but numbers."""
        return str(_element(self.kind)).startswith(_NUMBERS)

    def within(self, value: Any) -> Any:
        """What a row's value of the outermost column has for this one."""
        for name in self.path[1:]:
            if isinstance(value, list):
                value = [one.get(name) if isinstance(one, dict) else None for one in value]
            else:
                value = value.get(name) if isinstance(value, dict) else None
        return value


def image_column(schema: Any, name: str, part: SourceFile) -> Column:
    """The column of images. UsageError naming those that there are, where it is missing or cannot hold any."""
    column = find_columns(schema, (name,), part)[0]
    kind = _plain(column.kind)
    fields = {field.name: _plain(field.type) for field in kind} if str(kind).startswith("struct<") else {}
    of_struct = _is(fields.get("bytes"), _BYTES) or _is(fields.get("path"), _TEXTS)
    if column.is_list or not (of_struct or _is(kind, (*_BYTES, *_TEXTS))):
        asked, has = f"read images from the column {name!r} of {part.uri}", _told(schema)
        found = f"it is {column.kind}, neither bytes nor the names of files, nor a struct with `bytes` or `path`"
        found = f"a row has a list of them, {column.kind}, and a sample is one image" if column.is_list else found
        raise UsageError(asked, f"{found}; all columns: {has}", _DO)
    return column


def find_columns(schema: Any, names: Sequence[str], part: SourceFile) -> tuple[Column, ...]:
    """Those of these names: as they stand, or `outer.inner`. UsageError for one that is missing or stands twice."""
    found = [_found(schema, name) for name in names]
    if missing := [name for name, columns in zip(names, found, strict=True) if not columns]:
        raise UsageError(f"read the columns {some(missing)} of {part.uri}", f"its columns are {_told(schema)}", _DO)
    if twice := [name for name, columns in zip(names, found, strict=True) if len(columns) > 1]:
        why = "several columns have that name, and which is meant nobody can tell"
        raise UsageError(f"read the columns {some(twice)} of {part.uri}", why, "give each column a name of its own")
    return tuple(columns[0] for columns in found)


_DO = "name the columns with `source.image` and `source.label`, as `outer.inner` where one lies in another"


def label_names(schema: Any, column: Column) -> tuple[str, ...]:
    """Class names that Hugging Face's `datasets` wrote beside a schema, if any. UsageError where one is no name."""
    try:
        return _parsed((schema.metadata or {}).get(b"huggingface", b""), column.path)
    except ValueError as error:
        asked = f"read the class names of the column {'.'.join(column.path)!r} in a file's schema"
        do = "write the file again with a name for each class"
        raise UsageError(asked, f"its ClassLabel has {error}", do) from error


@lru_cache(maxsize=8)
def _parsed(metadata: bytes, path: tuple[str, ...]) -> tuple[str, ...]:
    """The names are mostly the same, to the byte, in a thousand files."""
    try:
        feature = json.loads(metadata)["info"]["features"][path[0]]
        for name in path[1:]:
            feature = _of_each(feature, name)[name]
    except (KeyError, TypeError, ValueError):
        return ()
    feature = _of_each(feature)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list):
        return ()
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{name!r} among its {len(names)} names, which is no name")
    return tuple(names)


def _of_each(feature: Any, field: str = "names") -> Any:
    """What a sequence is of; anything else, or what has the field that is looked for, as it is."""
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature and field not in feature):
        feature = feature[0] if isinstance(feature, list) and feature else dict(feature or {}).get("feature")
    return feature


def _found(fields: Iterable[Any], name: str, crosses: bool = False) -> list[Column]:
    """The columns that a name can mean: one that stands so before any that lie within others."""
    fields = list(fields)
    if own := [field for field in fields if field.name == name]:
        return [Column((name,), _element(field.type), crosses or _is_list(field.type), crosses) for field in own]
    columns: list[Column] = []
    for field in fields:
        inner = _element(field.type)
        if name.startswith(f"{field.name}.") and str(inner).startswith("struct<"):
            within = _found(inner, name.removeprefix(f"{field.name}."), crosses or _is_list(field.type))
            columns += [Column((field.name, *one.path), one.kind, one.is_list, one.crosses_list) for one in within]
    return columns


def _told(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _is(kind: Any, names: Sequence[str]) -> bool:
    return kind is not None and str(kind).partition("[")[0] in names


def _is_list(kind: Any) -> bool:
    return str(_storage(kind)).partition("<")[0] in _LISTS


def _element(kind: Any) -> Any:
    """What a list is of, however deep; of a dictionary its values; of anything else itself."""
    kind = _plain(kind)
    return _element(kind.value_type) if _is_list(kind) else kind


def _plain(kind: Any) -> Any:
    """Without the wrapping of an extension or a dictionary."""
    kind = _storage(kind)
    return _plain(kind.value_type) if str(kind).startswith("dictionary<") else kind


def _storage(kind: Any) -> Any:
    return kind.storage_type if hasattr(kind, "storage_type") else kind
