"""What is known of a set's images, and what is done to each, as `stages.costs` takes them. No torch."""

from dataclasses import dataclass

from vitpipe.stages.artifacts import IMAGES, PIXELS, ShardSet
from vitpipe.stages.costs.reading import DECODING, USUAL, Formats, ImageWork, parts_of
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.images.config import AugmentSettings


def image_work(augment: AugmentSettings, shards: object, image_px: int, ranged: float = 0.0) -> ImageWork:
    """Describe what is done to an image of these shards; `ranged` is the share that is read from the store alone."""
    facts, operations = image_facts(shards), augment.randaugment
    return ImageWork(
        formats=facts.formats,
        bytes=facts.bytes,
        pixels=facts.pixels,
        out_px=image_px,
        kind=operations.kind if operations else "torchvision",
        layers=operations.layers if operations else 0,
        mixes=augment.mixes,
        ranged=ranged,
    )


@dataclass(frozen=True)
class ImageFacts:
    """An image of a set, on average; where nothing is known, ImageNet's."""

    formats: Formats = ((USUAL[0], 1.0),)
    bytes: float = USUAL[1]
    pixels: float | None = None
    """None where nobody has counted them."""


def image_facts(shards: object) -> ImageFacts:
    """Find what is known of a set, committed or planned; a set that earlier versions ingested counts no formats."""
    if isinstance(shards, ShardSet):
        images, metrics = sum(shards.splits.values()), shards.metrics
        if not images or not shards.image_bytes:
            return ImageFacts()
        formats = parts_of({name: metrics.get(IMAGES.format(name), 0.0) for name in DECODING})
        pixels = metrics[PIXELS] / images if PIXELS in metrics else None
        return ImageFacts(formats, shards.image_bytes / images, pixels)
    if isinstance(shards, Estimate):
        return ImageFacts(parts_of(shards.image_formats or {}), shards.image_bytes or USUAL[1])
    return ImageFacts()
