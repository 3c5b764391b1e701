"""Parquet files in the layout of Hugging Face image data sets, local or on S3, row group by row group. No torch."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import Item, Listing, some
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing, Labelled, class_label, labels_apart
from vitpipe.stages.ingest.sources.opened import SourceOfFiles
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.row_groups import DAMAGE, damaged, opened_parquet, rows
from vitpipe.stages.ingest.sources.vocabulary import Vocabulary, agreed, joined


@dataclass(frozen=True)
class ParquetRows(SourceOfFiles):
    """Satisfies `opened.Source`. An item's place is (file, row group, row in it)."""

    patterns: tuple[str, ...]
    """What named the files, for messages."""
    image: str
    label: str
    """Columns, as in `parquet.ParquetSource`."""

    costly: ClassVar[bool] = True
    """A row alone costs its whole row group."""
    piece: ClassVar[int] = 2
    """A row group."""

    def known_classes(self) -> Classes | None:
        """Those of the config, or the names of a ClassLabel in the files' schemas, united; None where rows say them."""
        said = [self._schema(part) for part in self.files]
        return agreed(said, self.fixed)[0] if self.fixed or any(one.names for one in said) else None

    def list_file(self, file: SourceFile) -> FileListing:
        """All rows of one file, of which only the labels are read. UsageError naming the columns that there are."""
        with opened_parquet(file) as opened:
            several = self._check_columns(file, opened.schema_arrow)
            names = label_names(opened.schema_arrow, self.label)
            images: list[Labelled] = []
            for group in range(opened.num_row_groups):
                for row, label in enumerate(self._labels(opened, group)):
                    name = f"{file.name}#{len(images):09d}"
                    images.append(_labelled(name, label, (file.number, group, row)))
        return FileListing(*labels_apart(images), several, file=file.name, names=names)

    def joined(self, parts: Sequence[FileListing]) -> Listing:
        """One listing, its classes united by name. UsageError for no row at all, and where lists contradict."""
        listing = joined(parts, self.fixed)
        if not listing.items:
            asked = f"ingest the parquet files {some(self.patterns)}"
            raise UsageError(asked, f"{len(parts)} files without a row", "check `urls`")
        return listing

    def read(self, item: Item) -> bytes:
        """One row's bytes, for the price of its row group. BadImage where there are none."""
        found = next(self.reads([item]))
        if isinstance(found, BadImage):
            raise found
        return found

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """Each row group is decompressed once, through memory that `row_groups.rows` says."""
        return rows(self.files, [item.place for item in items], self._images)

    def _images(self, schema: Any, part: SourceFile) -> tuple[str, Callable[[Any], bytes | BadImage]]:
        return self.image, _image_bytes

    def _schema(self, part: SourceFile) -> Vocabulary:
        """What a file says of its classes without a look at its rows."""
        with opened_parquet(part) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            self._check_columns(part, schema)
            names = label_names(schema, self.label)
        kind = str(schema.field(self.label).type)
        return Vocabulary(part.name, names, only_numbers=bool(rows) and _INTEGER.fullmatch(kind) is not None)

    def _labels(self, file: Any, group: int) -> list[Any]:
        """The labels of a row group; of a damaged one as many BadImages as it has rows."""
        try:
            labels: list[Any] = file.read_row_group(group, columns=[self.label]).column(0).to_pylist()
        except DAMAGE as error:
            return [BadImage(damaged(group, error))] * file.metadata.row_group(group).num_rows
        return labels

    def _check_columns(self, part: SourceFile, schema: Any) -> bool:
        """Whether the labels are lists. UsageError when the columns are not what the config says."""
        has = ", ".join(f"{field.name} ({field.type})" for field in schema)
        missing = [name for name in (self.image, self.label) if name not in schema.names]
        do = "name the columns with `source.image` and `source.label`"
        if missing:
            raise UsageError(f"read the columns {some(missing)} of {part.uri}", f"its columns are {has}", do)
        image, label = str(schema.field(self.image).type), str(schema.field(self.label).type)
        if not (image in _BYTES or (image.startswith("struct<") and _has_bytes(schema.field(self.image).type))):
            asked = f"read images from the column {self.image!r} of {part.uri}"
            raise UsageError(asked, f"it is {image}, neither bytes nor a struct with `bytes`; all columns: {has}", do)
        return label.startswith(("list<", "large_list<", "fixed_size_list<"))


_BYTES = ("binary", "large_binary")
_INTEGER = re.compile(r"(?:(?:large_|fixed_size_)?list<\w+: )?u?int\d+(?: not null)?(?:>(?:\[\d+\])?)?")
"""Types of a column that holds nothing but numbers of classes."""


def _has_bytes(struct: Any) -> bool:
    return any(field.name == "bytes" and str(field.type) in _BYTES for field in struct)


def _labelled(name: str, label: Any, place: tuple[int, int, int]) -> Labelled:
    if isinstance(label, BadImage):
        return Labelled(name, (), 0, place, str(label))
    try:
        labels = label if isinstance(label, list) else [label]
        if not labels:
            raise ValueError("no label: []")
        return Labelled(name, tuple(dict.fromkeys(map(class_label, labels))), 0, place)
    except ValueError as error:
        return Labelled(name, (), 0, place, f"it has {error}")


def _image_bytes(value: Any) -> bytes | BadImage:
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        return data
    path = value.get("path") if isinstance(value, dict) else None
    return BadImage(f"the row has no bytes, only the path {path!r}" if path else "the row has no image")


def label_names(schema: Any, column: str) -> tuple[str, ...]:
    """Class names that Hugging Face's `datasets` wrote beside a schema, if any. UsageError where one is no name."""
    try:
        return _parsed((schema.metadata or {}).get(b"huggingface", b""), column)
    except ValueError as error:
        asked = f"read the class names of the column {column!r} in a file's schema"
        do = "write the file again with a name for each class"
        raise UsageError(asked, f"its ClassLabel has {error}", do) from error


@lru_cache(maxsize=8)
def _parsed(metadata: bytes, column: str) -> tuple[str, ...]:
    """The names are mostly the same, to the byte, in a thousand files."""
    try:
        feature = json.loads(metadata)["info"]["features"][column]
    except (KeyError, TypeError, ValueError):
        return ()
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):  # a sequence of labels
        feature = feature[0] if isinstance(feature, list) and feature else dict(feature or {}).get("feature")
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list):
        return ()
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{name!r} among its {len(names)} names, which is no name")
    return tuple(names)
