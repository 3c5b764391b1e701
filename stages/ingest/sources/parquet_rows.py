"""Parquet files in the layout of Hugging Face image data sets, local or on S3, row group by row group. No torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage, tried
from vitpipe.stages.ingest.listing import Item, Items, some
from vitpipe.stages.ingest.sources.class_names import (
    Classes,
    FileListing,
    JoinedFiles,
    Labelled,
    Listed,
    class_label,
    labels_apart,
)
from vitpipe.stages.ingest.sources.hub_features import named_in_card
from vitpipe.stages.ingest.sources.named_images import named_image
from vitpipe.stages.ingest.sources.opened import SourceOfFiles
from vitpipe.stages.ingest.sources.parquet_columns import Column, find_columns, image_column, label_names
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.row_groups import DAMAGE, damaged, opened_parquet, rows
from vitpipe.stages.ingest.sources.text_file import decoded
from vitpipe.stages.ingest.sources.vocabulary import Vocabulary, agreed, joined

SHOWN = 40
"""Bytes of a label in a message."""


@dataclass(frozen=True)
class ParquetRows(SourceOfFiles):
    """Satisfies `opened.Source`. An item's place is (file, row group, row in it)."""

    patterns: tuple[str, ...]
    """What named the files, for messages."""
    image: str
    label: str | None
    """Columns, as in `parquet.ParquetSource`; none of the label where rows have no classes."""

    costly: ClassVar[bool] = True
    """A row alone costs its whole row group."""
    piece: ClassVar[int] = 2
    """A row group."""

    def known_classes(self) -> Classes | None:
        """Those of the config, or the names of a ClassLabel in the files' schemas, united; None where rows say them."""
        if self.label is None:
            return Classes.of(())
        said = [self._schema(part) for part in self.files]
        return agreed(said, self.fixed)[0] if self.fixed or any(one.names for one in said) else None

    def list_file(self, file: SourceFile) -> Listed:
        """All rows of one file, of which only the labels are read. UsageError naming the columns that there are."""
        with opened_parquet(file) as opened:
            column = self._label_column(file, opened.schema_arrow)
            if column is None:
                return self._unlabelled(file, opened)
            names = label_names(opened.schema_arrow, column) or named_in_card(file.folder, column.path)
            images: list[Labelled] = []
            for group in range(opened.num_row_groups):
                for row, label in enumerate(_labels(opened, group, column)):
                    name = f"{file.name}#{len(images):09d}"
                    images.append(_labelled(name, label, (file.number, group, row)))
        items, labels = labels_apart(images)
        return items, FileListing(len(items), labels, column.is_list, file=file.name, names=names)

    def _unlabelled(self, file: SourceFile, opened: Any) -> Listed:
        """All rows, of which nothing needs to be read."""
        images, number = Items(), 0
        for group in range(opened.num_row_groups):
            for row in range(opened.metadata.row_group(group).num_rows):
                images.append(Item(f"{file.name}#{number:09d}", (), None, 0, (file.number, group, row)))
                number += 1
        return images, FileListing(number, (), file=file.name)

    def joined(self, parts: Sequence[FileListing]) -> JoinedFiles:
        """All together, classes united by name. UsageError for no row at all, and where lists contradict."""
        found = joined(parts, self.fixed)
        if not any(part.count for part in parts):
            asked = f"ingest the parquet files {some(self.patterns)}"
            raise UsageError(asked, f"{len(parts)} files without a row", "check `urls`")
        return found

    def read(self, item: Item) -> bytes:
        """One row's bytes, for the price of its row group. BadImage where there are none."""
        found = next(self.reads([item]))
        if isinstance(found, BadImage):
            raise found
        return found

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """Each row group is decompressed once, through memory that `row_groups.rows` says."""
        return rows(self.files, [item.place for item in items], self._images)

    def _images(self, schema: Any, part: SourceFile) -> tuple[Column, Callable[[Any], bytes | BadImage]]:
        return image_column(schema, self.image, part), partial(_image_bytes, part)

    def _schema(self, part: SourceFile) -> Vocabulary:
        """What a file says of its classes without a look at its rows."""
        with opened_parquet(part) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            column = self._label_column(part, schema)
            assert column is not None  # without classes nobody asks
            names = label_names(schema, column) or named_in_card(part.folder, column.path)
        return Vocabulary(part.name, names, only_numbers=bool(rows) and column.has_numbers)

    def _label_column(self, part: SourceFile, schema: Any) -> Column | None:
        """UsageError when the columns are not what the config says. None where rows have no classes."""
        wanted = (self.image,) if self.label is None else (self.image, self.label)
        found = find_columns(schema, wanted, part)
        image_column(schema, self.image, part)
        return None if self.label is None else found[-1]


def _labels(file: Any, group: int, column: Column) -> list[Any]:
    """The labels of a row group; of a damaged one as many BadImages as it has rows."""
    try:
        values = file.read_row_group(group, columns=[column.read]).column(column.path[0]).to_pylist()
    except DAMAGE as error:
        return [BadImage(damaged(group, error))] * file.metadata.row_group(group).num_rows
    return [column.within(value) for value in values]


def _labelled(name: str, label: Any, place: tuple[int, int, int]) -> Labelled:
    if isinstance(label, BadImage):
        return Labelled(name, (), 0, place, str(label))
    try:
        labels = [_text(one) for one in label] if isinstance(label, list) else [_text(label)]
        if not labels:
            raise ValueError("no label: []")
        return Labelled(name, tuple(dict.fromkeys(map(class_label, labels))), 0, place)
    except ValueError as error:
        return Labelled(name, (), 0, place, f"it has {error}")


def _text(label: Any) -> Any:
    """Text that some writers store as bytes. ValueError in words for other bytes."""
    try:
        return decoded(label) if isinstance(label, bytes) else label
    except UnicodeDecodeError:
        raise ValueError(f"a label that is no text: {label[:SHOWN]!r}") from None


def _image_bytes(part: SourceFile, value: Any) -> bytes | BadImage:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return data
    path = data if isinstance(data, str) else path
    return tried(partial(named_image, part), path) if path else BadImage("the row has no image")
