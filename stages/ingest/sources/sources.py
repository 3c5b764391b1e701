"""From the config's `source` to what lists and reads it. No torch."""

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.config import (
    BenchmarkSource,
    DigitsSource,
    FolderSource,
    GlyphsSource,
    IngestConfig,
)
from vitpipe.stages.ingest.listing import Source
from vitpipe.stages.ingest.look.reencode import ReencodingSource
from vitpipe.stages.ingest.look.restarts import WithRestarts
from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles
from vitpipe.stages.ingest.sources.class_names import Classes, parse_names
from vitpipe.stages.ingest.sources.digits import Digits
from vitpipe.stages.ingest.sources.files import ParquetSource, WebdatasetSource
from vitpipe.stages.ingest.sources.folder_tree import FolderTree
from vitpipe.stages.ingest.sources.glyph_drawing import Glyphs
from vitpipe.stages.ingest.sources.labels_file import read_text
from vitpipe.stages.ingest.sources.parquet_rows import Parquet
from vitpipe.stages.ingest.sources.tar_samples import Tars


def open_source(config: IngestConfig) -> Source:
    """The source that a config names. UsageError when it cannot be there."""
    match config.source:
        case FolderSource(root=root, labels=labels):
            return FolderTree(root, labels, config.splits == "folders")
        case WebdatasetSource() as tars:
            return Tars.find(tars, _classes(tars.classes, tars.class_names))
        case ParquetSource() as parquet:
            return Parquet.find(parquet, _classes(parquet.classes, parquet.class_names))
        case BenchmarkSource(name=name, root=root):
            return BenchmarkFiles(name, root)
        case DigitsSource():
            return Digits()
        case GlyphsSource() as glyphs:
            return Glyphs.choose(glyphs)


def as_written(source: Source, config: IngestConfig) -> Source:
    """The source with its images changed as the config asks, before they are looked at and written."""
    if config.reencode is not None:
        source = ReencodingSource(source, config.reencode)
    return WithRestarts(source) if config.restart_intervals else source


def _classes(count: int | None, where: str | None) -> Classes | None:
    """What the config fixes. UsageError for a file of names that is none."""
    if count is not None:
        return Classes.of([str(number) for number in range(count)])
    if where is None:
        return None
    try:
        names = parse_names(read_text(where))
    except ValueError as error:
        raise UsageError(f"read the class names {where}", str(error), "one name a line, or a JSON list") from error
    if not names:
        raise UsageError(f"read the class names {where}", "it is empty", "one name a line, or a JSON list")
    return Classes.of(names, where)
