"""From the config's `source` to what lists and reads it. No torch."""

from stages.ingest.config import DigitsSource, FolderSource, GlyphsSource, IngestConfig
from stages.ingest.listing import Source
from stages.ingest.source_digits import Digits
from stages.ingest.source_folder import FolderTree
from stages.ingest.source_glyphs import Glyphs


def open_source(config: IngestConfig) -> Source:
    """The source that a config names. UsageError when it cannot be there."""
    match config.source:
        case FolderSource(root=root, labels=labels):
            return FolderTree(root, labels, config.splits == "folders")
        case DigitsSource():
            return Digits()
        case GlyphsSource() as glyphs:
            return Glyphs.choose(glyphs)
