"""Reader of Kaggle's Diabetic Retinopathy: two csv of labels beside folders of photographs, prepared as VTAB has them.

`btgraham-300`: the eye scaled to a radius of 300 pixels, its local average taken away, the rim masked and cut.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vitpipe.stages.images.decode import encoded
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage, OfficialListing, Reader, damaged, decoded, reading
from vitpipe.stages.ingest.benchmarks.opencv_like import Pixels, disc, less_local_average, resize_by
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item

RADIUS = 300
KEPT_RADIUS = int(RADIUS * 0.9)
QUALITY = 72


def _listed(benchmark: Benchmark, root: Path) -> OfficialListing:
    entries = [
        *_rows(root / "trainLabels.csv", "train", {None: "train"}),
        *_rows(root / "retinopathy_solution.csv", "test", {"Public": "validation", "Private": "test"}),
    ]
    return OfficialListing(entries, benchmark.classes)


def _rows(path: Path, folder: str, splits: dict[str | None, str]) -> Iterator[OfficialImage]:
    """Rows `image,level`, of the test photographs also `Usage`: what Kaggle's public board scored validates."""
    with reading(path), path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        usage, level, name = row.get("Usage"), row.get("level"), row.get("image")
        if usage not in splits or level not in tuple("01234") or not name:
            raise damaged(path, f"a row says {row}")
        yield OfficialImage(f"{folder}/{name}.jpeg", splits[usage], (int(level),), key=name)


def _read(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    prepared = btgraham(np.asarray(decoded(benchmark, root, item)))
    return encoded(Image.fromarray(prepared), "JPEG", quality=QUALITY)


def btgraham(image: Pixels) -> Pixels:
    """Preparation of the competition's winner, as TensorFlow Datasets has it."""
    middle = image[image.shape[0] // 2].astype(np.int64).sum(axis=1)
    radius = float((middle > middle.mean() / 10).sum()) / 2
    if radius < 1:  # a photograph without an eye: the height stands for it
        radius = image.shape[0] / 2
    image = less_local_average(resize_by(image, RADIUS / radius), RADIUS / 30)
    height, width = image.shape[:2]
    image = np.where(disc(height, width, KEPT_RADIUS)[:, :, None], image, np.uint8(128))
    top, left = max(height // 2 - KEPT_RADIUS, 0), max(width // 2 - KEPT_RADIUS, 0)
    return image[top : height // 2 + KEPT_RADIUS, left : width // 2 + KEPT_RADIUS]


RETINOPATHY = Reader(_listed, _read, costly=True)
