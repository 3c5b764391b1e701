"""What an ingest will read and leave, as far as its source can be counted here. No torch."""

from collections.abc import Mapping, Sequence

from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.ingest.config import IngestConfig, IngestResources

TAR_OVERHEAD_BYTES = 2000


def estimate(
    config: IngestConfig, resources: IngestResources, inputs: Mapping[str, Sequence[Artifact | Estimate]], known: Known
) -> Estimate:
    """Images, classes and bytes; of local files by their listing. UsageError when there is nothing to ingest."""
    counted = config.source.count(config.splits)
    if isinstance(counted, str):
        return Estimate(notes=(counted,))
    kept, notes = _part(counted.images, config), counted.notes
    if isinstance(config.splits, dict) and len(config.splits) > 1:
        notes = (*notes, "splits are cut by content: their sizes are within the chance of a draw")
    return Estimate(
        images=kept,
        bytes=round(kept * (counted.image_bytes + TAR_OVERHEAD_BYTES)),
        hours=kept * counted.image_seconds / 3600,
        splits=_splits(config, kept, counted.splits),
        num_classes=counted.num_classes,
        class_names=counted.class_names,
        notes=notes,
    )


def _splits(config: IngestConfig, kept: int, listed: Mapping[str, int]) -> dict[str, int] | None:
    """Images of each split, where they are known before anything is read: `listed` are those that the source names."""
    if isinstance(config.splits, dict):
        return {name: round(kept * share) for name, share in sorted(config.splits.items())}
    return {name: round(kept * count / sum(listed.values())) for name, count in sorted(listed.items())} or None


def _part(count: int, config: IngestConfig) -> int:
    subset, limit = config.source.subset, config.source.limit
    share = round(count * subset.fraction) if subset else count
    return min(share, limit) if limit else share
