"""What an ingest will read and leave, as far as its source can be counted here. No torch."""

from collections import Counter
from collections.abc import Mapping, Sequence

from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.contract import Estimate, Known
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY
from vitpipe.stages.ingest.config import (
    BenchmarkSource,
    DigitsSource,
    FolderSource,
    GlyphsSource,
    IngestConfig,
    IngestResources,
)
from vitpipe.stages.ingest.listing import some
from vitpipe.stages.ingest.sources.digits import DIGIT_NAMES, NUM_DIGITS
from vitpipe.stages.ingest.sources.files import ParquetSource, WebdatasetSource
from vitpipe.stages.ingest.sources.folder_tree import FolderTree
from vitpipe.stages.ingest.sources.glyph_classes import choose_glyphs
from vitpipe.stages.ingest.sources.list_tasks import PartedSource
from vitpipe.stages.ingest.sources.sources import open_source

LOOK_SECONDS = 0.004
"""One core's time to read, decode and write a photo of 100 KB."""
GLYPH_SECONDS = 0.001
GLYPH_BYTES_PER_PIXEL = 1.0
TAR_OVERHEAD_BYTES = 2000
SURE_CLASSES = 1000
"""Of glyphs that the fonts have, whatever their version."""


def estimate(
    config: IngestConfig, resources: IngestResources, inputs: Mapping[str, Sequence[Artifact | Estimate]], known: Known
) -> Estimate:
    """Images, classes and bytes; of local files by their listing. UsageError when there is nothing to ingest."""
    notes: tuple[str, ...] = ()
    classes: int | None
    names: tuple[str, ...] | None = None
    listed: Mapping[str, int] = {}
    match config.source:
        case GlyphsSource() as glyphs:
            if glyphs.classes > SURE_CLASSES:
                choose_glyphs(glyphs.classes, glyphs.seed)  # reads all fonts, in a second or two
            count, classes = glyphs.classes * glyphs.images_per_class, glyphs.classes
            each_bytes, each_seconds = glyphs.image_px**2 * GLYPH_BYTES_PER_PIXEL, GLYPH_SECONDS
        case BenchmarkSource(name=name):
            benchmark = REGISTRY[name]
            listed, classes = benchmark.splits, benchmark.num_classes
            names = None if all(name.isdecimal() for name in benchmark.classes) else benchmark.classes
            count = sum(listed.values())
            each_bytes, each_seconds = float(benchmark.image_bytes), LOOK_SECONDS
        case DigitsSource():
            count, classes, each_bytes, each_seconds = NUM_DIGITS, 10, 100.0, GLYPH_SECONDS
            names = DIGIT_NAMES
        case FolderSource(root=root, labels=labels):
            if "://" in root:
                return Estimate(notes=(f"counted when {root} is listed",))
            listing = FolderTree(root, labels, config.splits == "folders").listing()
            count, classes, names, notes = len(listing.items), len(listing.classes), listing.classes, listing.notes
            listed = Counter(item.split for item in listing.items if item.split is not None)
            each_bytes, each_seconds = sum(item.size for item in listing.items) / count, LOOK_SECONDS
        case WebdatasetSource(patterns=urls) | ParquetSource(patterns=urls):
            if any(url.startswith("s3://") for url in urls):
                return Estimate(notes=(f"counted when {some(urls)} are listed",))
            source = open_source(config)
            assert isinstance(source, PartedSource)
            count, names, notes = _by_first(source)
            classes = None if names is None else len(names)
            each_bytes, each_seconds = sum(part.size for part in source.files) / max(count, 1), LOOK_SECONDS
    kept = _part(count, config)
    if isinstance(config.splits, dict) and len(config.splits) > 1:
        notes = (*notes, "splits are cut by content: their sizes are within the chance of a draw")
    return Estimate(
        images=kept,
        bytes=round(kept * (each_bytes + TAR_OVERHEAD_BYTES)),
        hours=kept * each_seconds / 3600,
        splits=_splits(config, kept, listed),
        num_classes=classes,
        class_names=names,
        notes=notes,
    )


def _splits(config: IngestConfig, kept: int, listed: Mapping[str, int]) -> dict[str, int] | None:
    """Images of each split, where they are known before anything is read: `listed` are those that the source names."""
    if isinstance(config.splits, dict):
        return {name: round(kept * share) for name, share in sorted(config.splits.items())}
    return {name: round(kept * count / sum(listed.values())) for name, count in sorted(listed.items())} or None


def _by_first(source: PartedSource) -> tuple[int, tuple[str, ...] | None, tuple[str, ...]]:
    """Images, classes where they are fixed, and a note: the first file is opened, the others count by their size."""
    first = source.list_part(source.files[0])
    if len(source.files) == 1:
        source.joined([first])  # refuses a source without an image
    classes = source.known_classes()
    total = sum(part.size for part in source.files)
    count = round(len(first.images) * total / max(source.files[0].size, 1))
    several = f"reckoned from the first of {len(source.files)} files"
    return count, classes.names if classes else None, (several,) if len(source.files) > 1 else ()


def _part(count: int, config: IngestConfig) -> int:
    subset, limit = config.source.subset, config.source.limit
    share = round(count * subset.fraction) if subset else count
    return min(share, limit) if limit else share
