"""What is known of a set's images, and what is done to each, as `stages.costs` takes them. No torch."""

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.costs.reading import USUAL, ImageWork
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.images.config import AugmentSettings


def image_work(augment: AugmentSettings, shards: object, image_px: int, ranged: float = 0.0) -> ImageWork:
    """Describe what is done to an image of these shards; `ranged` is the share that is read from the store alone."""
    bytes_, format_ = image_facts(shards)
    operations = augment.randaugment
    return ImageWork(
        format=format_,
        bytes=bytes_,
        out_px=image_px,
        kind=operations.kind if operations else "torchvision",
        layers=operations.layers if operations else 0,
        mixes=augment.mixes,
        ranged=ranged,
    )


def image_facts(shards: object) -> tuple[float, str]:
    """Bytes of one image, and its format, as far as they are known; else those of ImageNet."""
    format_ = getattr(shards, "image_format", None) or USUAL[0]
    if isinstance(shards, ShardSet):
        images = sum(shards.splits.values())
        return (shards.image_bytes / images if images and shards.image_bytes else USUAL[1]), format_
    found = shards.image_bytes if isinstance(shards, Estimate) else None
    return found or USUAL[1], format_
