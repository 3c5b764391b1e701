"""Rows of parquet files, local or on S3: each row group decompressed once, from its first row on. No torch.

Knows neither images nor labels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.sources.parquet_columns import Column
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.window import LOCAL_BLOCK_BYTES, Window, WindowFile, refuse_pointer

T = TypeVar("T")
Place = tuple[int, ...]
"""File, row group, row in it."""
Asked = Callable[[Any, SourceFile], tuple[Column, Callable[[Any], T]]]
"""Of a schema and its file: the column to read, and what becomes of a value."""

BATCH_ROWS = 64
"""Rows taken from a page at once."""
LOCAL_BUFFER_BYTES = 1_048_576
REMOTE_BUFFER_BYTES = 4_194_304
"""Bytes of a column read at once: a request to a server costs as much time as some megabytes."""
DAMAGE = (OSError, ValueError)
"""What pyarrow raises on pages that do not decompress or decode: ArrowInvalid is a ValueError."""


def rows(files: Sequence[SourceFile], places: Sequence[Place], asked: Asked[T]) -> Iterator[T | BadImage]:
    """What stands at each of the distinct `places` in the column of its file; a BadImage for each damaged row.

    A row group is decompressed once, up to the last row asked for, however many they are. With ascending places (as a
    listing has them) memory is bounded whatever its size: `BATCH_ROWS` rows, the page they stand in, the column's
    dictionary page and one buffer; writers make pages of 1 MB or, of images that are larger, of 1,024 rows mostly. In
    any other order what is asked for later waits in memory.
    """
    wanted: dict[Place, set[int]] = {}
    for place in places:
        wanted.setdefault(place[:2], set()).add(place[2])
    waiting: dict[Place, T | BadImage] = {}
    group: Place = ()
    coming: Iterator[tuple[Place, T | BadImage]] = iter(())
    with ExitStack() as file_open:
        opened = _LastOpened(files, file_open)
        for place in places:
            if place not in waiting and place[:2] != group:
                waiting.update(coming)  # the rest of the one before
                group = place[:2]
                coming = _of_group(opened, group, wanted.pop(group), asked)
            while place not in waiting:
                found, value = next(coming)
                waiting[found] = value
            yield waiting.pop(place)


def damaged(group: int, error: Exception) -> str:
    """What is wrong with a row group, in one line."""
    return f"row group {group} is damaged: {str(error).splitlines()[0]}"


class _LastOpened:
    """One file at a time, kept open from one row group to the next: a footer names every row group of its file."""

    def __init__(self, files: Sequence[SourceFile], stack: ExitStack) -> None:
        self.files, self._stack = files, stack
        self._number, self._file = -1, None

    def file(self, number: int) -> Any:
        if number != self._number:
            self._stack.close()
            self._number, self._file = -1, None
            self._file = self._stack.enter_context(opened_parquet(self.files[number]))
            self._number = number
        return self._file


def _of_group(
    opened: _LastOpened, group: Place, rows: set[int], asked: Asked[T]
) -> Iterator[tuple[Place, T | BadImage]]:
    """The places in a row group, ascending, with what is there."""
    first, left = 0, sorted(rows, reverse=True)
    try:
        file = opened.file(group[0])
        column, value_of = asked(file.schema_arrow, opened.files[group[0]])
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group[1]], columns=[column.read]):
            values = batch.column(column.path[0])
            while left and left[-1] < first + len(values):
                value = value_of(column.within(values[left[-1] - first].as_py()))
                yield (*group, left.pop()), value
            first += len(values)
            if not left:
                return
    except DAMAGE as error:
        yield from (((*group, row), BadImage(damaged(group[1], error))) for row in reversed(left))


@contextmanager
def opened_parquet(part: SourceFile) -> Iterator[Any]:
    """A parquet file through our own store. UsageError when it is none."""
    arrow, parquet = _pyarrow()
    buffer_bytes = LOCAL_BUFFER_BYTES if part.is_local else REMOTE_BUFFER_BYTES
    window = Window(part, LOCAL_BLOCK_BYTES)  # pieces of columns are asked for as they are needed
    refuse_pointer(window, part.uri)
    with WindowFile(window) as raw:
        try:
            options = {"pre_buffer": False, "buffer_size": buffer_bytes, "page_checksum_verification": True}
            file = parquet.ParquetFile(arrow.PythonFile(raw, mode="r"), **options)
        except arrow.ArrowInvalid as error:
            raise UsageError(f"read {part.uri}", f"it is no parquet file: {error}", "correct `urls`") from error
        with file:
            yield file


@lru_cache(maxsize=1)
def _pyarrow() -> tuple[Any, Any]:
    """A third of a second to import: only where parquet is ingested."""
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet
