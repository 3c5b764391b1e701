"""Parquet files in the layout of Hugging Face, local or on S3: `parquet_rows.py` lists and reads them. No torch."""

from typing import TYPE_CHECKING, ClassVar, Literal

from vitpipe.stages.ingest.sources.file_list import FilesSource

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.sources.class_names import Classes
    from vitpipe.stages.ingest.sources.parquet_rows import ParquetRows
    from vitpipe.stages.ingest.sources.patterns import SourceFile


class ParquetSource(FilesSource):
    """Parquet files in the layout of Hugging Face image data sets."""

    suffix: ClassVar[str] = ".parquet"
    reads_little: ClassVar[bool] = True

    kind: Literal["parquet"]
    image: str = "image"
    """Column of the images: encoded bytes, or a struct with a field `bytes`; or names of image files beside the
    parquet file (or absolute ones), as text or in a field `path`. `outer.inner` is a field within a column."""
    label: str = "label"
    """Column of the classes: a number, a name, or a list of either; `outer.inner` for a field within a column. A
    number is what the ClassLabel in its own file's schema calls it; files are united by these names."""

    def open_files(self, files: "tuple[SourceFile, ...]", fixed: "Classes | None") -> "ParquetRows":
        """The rows of these files."""
        from vitpipe.stages.ingest.sources.parquet_rows import ParquetRows

        return ParquetRows(files, fixed, self.patterns, self.image, None if self.unlabelled else self.label)
