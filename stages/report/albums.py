"""Sample images of each class of a data set, read one by one out of the shards: no shard is copied for a thumbnail."""

import base64
import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from infra.errors import IntegrityError
from stages.artifacts import ShardSet
from stages.images.decode import Pixels, decode
from stages.images.index import ShardIndex, parse_index
from stages.images.manifest import load_manifest
from stages.report.gallery import Album

THUMBNAIL_PX = 64
"""Images are shown at their own size up to this, larger ones shrunk to it."""
MAX_INDEXES = 40
"""Shards whose indexes are searched for samples; a class that none of them has is left out."""


def album(name: str, data: ShardSet, samples: int, max_classes: int) -> Album:
    """A strip of training images for each class, or for evenly spread ones where there are many."""
    manifest = load_manifest(data)
    number = len(manifest.classes)
    shown = sorted({round(place) for place in np.linspace(0, number - 1, min(number, max_classes)).tolist()})
    found = _find(data, shown, samples)
    thumbnails = {label: [_thumbnail(data, *place) for place in places] for label, places in found.items()}
    side = max((max(image.shape[:2]) for images in thumbnails.values() for image in images), default=1)
    strips = tuple((manifest.classes[label], _strip(images, samples, side)) for label, images in thumbnails.items())
    sizes = ", ".join(f"{split} {count:,}" for split, count in sorted(data.splits.items(), reverse=True))
    facts = [f"{number:,} classes", f"{sizes} images"]
    if len(strips) < number:
        facts.append(f"{len(strips)} classes shown")
    if manifest.source.quarantined:
        facts.append(f"{manifest.source.quarantined} quarantined")
    if manifest.source.duplicates:
        facts.append(f"{manifest.source.duplicates} duplicates removed")
    return Album(name=name, facts=" · ".join(facts), photos=side >= THUMBNAIL_PX, classes=strips)


def _find(data: ShardSet, labels: Sequence[int], samples: int) -> dict[int, list[tuple[ShardIndex, int]]]:
    """The first images of each class in manifest order, as places in shards."""
    found: dict[int, list[tuple[ShardIndex, int]]] = {label: [] for label in labels}
    for entry in load_manifest(data).of("train")[:MAX_INDEXES]:
        index = parse_index(data.read(entry.index), entry.index)
        for place, classes in enumerate(index.labels):
            wanted = found.get(classes[0]) if classes else None
            if wanted is not None and len(wanted) < samples:
                wanted.append((index, place))
        if all(len(places) == samples for places in found.values()):
            break
    return {label: places for label, places in found.items() if places}


def _thumbnail(data: ShardSet, index: ShardIndex, place: int) -> Pixels:
    """One image, its bytes checked against the index. IntegrityError when they differ."""
    file = data.file(index.path)
    content = data.store().read(file.at, start=index.offset[place], length=index.size[place])
    if hashlib.sha256(content).hexdigest() != index.sha256s[place]:
        found = "its bytes are not those the index names"
        raise IntegrityError(f"read image {index.key[place]} of {data.uri}", found, "restore the shard")
    image = Image.fromarray(decode(content))
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
    buffer, photo = io.BytesIO(), side >= THUMBNAIL_PX
    Image.fromarray(strip).save(buffer, "WEBP", quality=80, lossless=not photo)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
