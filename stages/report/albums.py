"""Sample images of each class of a data set, as strips for the page."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.manifest import load_index, load_manifest
from vitpipe.stages.report.gallery import Album
from vitpipe.stages.report.samples import MAX_INDEXES, Sample, read_image
from vitpipe.stages.report.sheets import webp_uri

THUMBNAIL_PX = 64
"""Images are shown at their own size up to this, larger ones shrunk to it."""


def album(name: str, data: ShardSet, samples: int, max_classes: int) -> Album:
    """Make a strip of training images for each class, or for evenly spread classes where there are many."""
    manifest = load_manifest(data)
    number = len(manifest.classes)
    shown = sorted({round(place) for place in np.linspace(0, number - 1, min(number, max_classes)).tolist()})
    found = _find(data, shown, samples)
    thumbnails = {label: [_thumbnail(data, place) for place in places] for label, places in found.items()}
    side = max((max(image.shape[:2]) for images in thumbnails.values() for image in images), default=1)
    strips = tuple((manifest.classes[label], _strip(images, samples, side)) for label, images in thumbnails.items())
    sizes = ", ".join(f"{split} {count:,}" for split, count in sorted(data.splits.items(), reverse=True))
    facts = [f"{number:,} classes" if number else "no classes", f"{sizes} images"]
    if len(strips) < number:
        facts.append(f"{len(strips)} classes shown")
    if manifest.source.quarantined:
        facts.append(f"{manifest.source.quarantined} quarantined")
    if manifest.source.duplicates:
        facts.append(f"{manifest.source.duplicates} duplicates removed")
    return Album(name=name, facts=" · ".join(facts), photos=side >= THUMBNAIL_PX, classes=strips)


def _find(data: ShardSet, labels: Sequence[int], samples: int) -> dict[int, list[Sample]]:
    """The first training images of each class in manifest order; of a held-out set, images of its largest split."""
    found: dict[int, list[Sample]] = {label: [] for label in labels}
    split = "train" if data.splits.get("train") else max(data.splits, key=lambda name: data.splits[name])
    for entry in load_manifest(data).of(split)[:MAX_INDEXES]:
        index = load_index(data, entry)
        for place, classes in enumerate(index.labels):
            wanted = found.get(classes[0]) if classes else None
            if wanted is not None and len(wanted) < samples:
                wanted.append(Sample(index, place))
        if all(len(places) == samples for places in found.values()):
            break
    return {label: places for label, places in found.items() if places}


def _thumbnail(data: ShardSet, sample: Sample) -> Pixels:
    image = Image.fromarray(read_image(data, sample))
    if max(image.size) > THUMBNAIL_PX:
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _strip(images: Sequence[Pixels], samples: int, side: int) -> str:
    """Images side by side, each centred in a square, as a data URI: photographs as lossy WebP."""
    gap = max(1, side // 32)
    strip = np.zeros((side, samples * (side + gap) - gap, 4), np.uint8)
    for place, image in enumerate(images):
        height, width = image.shape[:2]
        y, x = (side - height) // 2, place * (side + gap) + (side - width) // 2
        strip[y : y + height, x : x + width, :3], strip[y : y + height, x : x + width, 3] = image, 255
    return webp_uri(strip, photos=side >= THUMBNAIL_PX)
