"""What an ingest will read and leave, as far as its source can be counted here. No torch."""

from collections.abc import Mapping, Sequence

from stages.artifacts import Artifact
from stages.contract import Estimate, Known
from stages.ingest.config import DigitsSource, FolderSource, GlyphsSource, IngestConfig, IngestResources
from stages.ingest.source_digits import NUM_DIGITS
from stages.ingest.source_folder import FolderTree

LOOK_SECONDS = 0.004
"""One core's time to read, decode and write a photo of 100 KB."""
GLYPH_SECONDS = 0.001
GLYPH_BYTES_PER_PIXEL = 1.0
TAR_OVERHEAD_BYTES = 2000


def estimate(
    config: IngestConfig, resources: IngestResources, inputs: Mapping[str, Sequence[Artifact | Estimate]], known: Known
) -> Estimate:
    """Images, classes and bytes; of a local folder by its listing. UsageError when there is nothing to ingest."""
    match config.source:
        case GlyphsSource() as glyphs:
            count, classes = glyphs.classes * glyphs.images_per_class, glyphs.classes
            each_bytes, each_seconds = glyphs.image_px**2 * GLYPH_BYTES_PER_PIXEL, GLYPH_SECONDS
        case DigitsSource():
            count, classes, each_bytes, each_seconds = NUM_DIGITS, 10, 100.0, GLYPH_SECONDS
        case FolderSource(root=root, labels=labels):
            if "://" in root:
                return Estimate(notes=(f"counted when {root} is listed",))
            listing = FolderTree(root, labels, config.splits == "folders").listing()
            count, classes = len(listing.items), len(listing.classes)
            each_bytes, each_seconds = sum(item.size for item in listing.items) / count, LOOK_SECONDS
    kept = _part(count, config)
    return Estimate(
        images=kept,
        bytes=round(kept * (each_bytes + TAR_OVERHEAD_BYTES)),
        hours=kept * each_seconds / 3600,
        splits={name: round(kept * share) for name, share in sorted(config.splits.items())}
        if isinstance(config.splits, dict)
        else None,
        num_classes=classes,
        notes=("splits are cut by content: their sizes are within the chance of a draw",)
        if isinstance(config.splits, dict) and len(config.splits) > 1
        else (),
    )


def _part(count: int, config: IngestConfig) -> int:
    subset, limit = config.source.subset, config.source.limit
    share = round(count * subset.fraction) if subset else count
    return min(share, limit) if limit else share
