"""What an ingest will read and leave, as far as its source can be counted here. No torch."""

from collections.abc import Iterator, Mapping, Sequence

from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.commits import at_commits, told
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.ingest.choose.near import bits_of_group
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.sources.folder_layout import misspelt
from vitpipe.stages.ingest.sources.source_settings import SourceCount

TAR_OVERHEAD_BYTES = 2000
NEAR_BYTES = 160
"""Memory for one image while near-duplicates are searched for, in a task that holds all that agree in some bits."""


def estimate(
    config: IngestConfig, resources: IngestResources, inputs: Mapping[str, Sequence[Artifact | Estimate]], known: Known
) -> Estimate:
    """Images, classes and bytes; of local files by their listing. UsageError when there is nothing to ingest."""
    config, commits = at_commits(config)
    counted = config.source.count(config.splits)
    if isinstance(counted, str):
        without = {"num_classes": 0, "class_names": ()} if config.source.unlabelled else {}
        return Estimate(notes=(counted, *told(commits)), **without)
    kept = _part(counted.images, config)
    notes = (*told(commits), *counted.notes, *_doubts(counted, kept), *misspelt(config.splits), *_near(config, kept))
    splits = _splits(config, kept, counted.splits)
    if isinstance(config.splits, dict) and len(config.splits) > 1:
        notes = (*notes, "splits are cut by content: their sizes are within the chance of a draw")
        wanted = {name: share for name, share in config.splits.items() if share > 0 and splits and not splits[name]}
        notes = (*notes, *(f"the split {name} is {share:g} of {kept} images: none" for name, share in wanted.items()))
    return Estimate(
        images=kept,
        bytes=round(kept * (counted.image_bytes + TAR_OVERHEAD_BYTES)),
        hours=kept * counted.image_seconds / 3600,
        image_bytes=counted.image_bytes,
        image_formats=dict(counted.formats),
        splits=splits,
        num_classes=counted.num_classes,
        class_names=counted.class_names,
        notes=notes,
    )


def _doubts(counted: SourceCount, kept: int) -> Iterator[str]:
    """What is allowed and may be a slip: classes among which there is nothing to tell apart."""
    if counted.num_classes == 1:
        only = f", {counted.class_names[0]!r}" if counted.class_names else ""
        yield f"one class alone{only}: no training learns to tell it from another, masked patches aside"
    elif counted.num_classes is not None and counted.num_classes == counted.images > 1:
        yield f"each of the {counted.images} images has a class of its own: none is left to test what was learned"
    elif counted.num_classes is not None and kept < counted.num_classes:
        yield f"{kept} images are fewer than the {counted.num_classes} classes: some have none to learn from"


def _near(config: IngestConfig, kept: int) -> Iterator[str]:
    """Whether tasks of a search need more memory than others: those that agree in few bits cannot be parted."""
    if config.deduplicate.near is None:
        return
    bits = bits_of_group(config.deduplicate.near.hamming)
    if (gigabytes := kept / 2**bits * NEAR_BYTES / 1e9) > 1:
        many = f"at `hamming: {config.deduplicate.near.hamming}` a task holds one in {2**bits} of all images"
        yield f"the search for near-duplicates, {many}: about {gigabytes:.0f} GB of memory"


def _splits(config: IngestConfig, kept: int, listed: Mapping[str, int]) -> dict[str, int] | None:
    """Images of each split, where they are known before anything is read: `listed` are those that the source names."""
    if isinstance(config.splits, dict):
        return {name: round(kept * share) for name, share in sorted(config.splits.items())}
    return {name: round(kept * count / sum(listed.values())) for name, count in sorted(listed.items())} or None


def _part(count: int, config: IngestConfig) -> int:
    subset, limit = config.source.subset, config.source.limit
    share = round(count * subset.fraction) if subset else count
    return min(share, limit) if limit else share
