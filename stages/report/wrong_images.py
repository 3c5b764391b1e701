"""Mistakes as pictures: images that a score names wrongly, read one by one out of the shards. No torch."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from vitpipe.stages.artifacts import Score, ShardSet
from vitpipe.stages.images.manifest import load_index, load_manifest
from vitpipe.stages.paper.tables import title
from vitpipe.stages.report.gallery import WrongImage, WrongImages, WrongTask
from vitpipe.stages.report.results import split_of
from vitpipe.stages.report.samples import Sample, read_image
from vitpipe.stages.report.sheets import webp_uri

WRONG_PX = 112
"""Longer side of a picture; smaller images stay as they are."""
SMALL_PX = 64
"""Images below this are drawings: shown pixel by pixel, and encoded without loss."""
MAX_SCORES = 4
"""Scores whose mistakes are shown."""
SHOWN = 16
"""Images of each."""
_WRITTEN = ("classify", "finetune")
"""Methods whose score.json has the mistakes."""


def wrong_tasks(
    scores: Sequence[Score], data: Mapping[str, ShardSet], nodes: Mapping[str, str], benchmarks: Mapping[str, str]
) -> list[WrongTask]:
    """Take the mistakes that the scores have written down, of the first `MAX_SCORES` that have any."""
    found = []
    for score in scores:
        shards = data.get(score.uri)
        if shards is None or score.protocol.get("method") not in _WRITTEN or not score.has("score.json"):
            continue
        content = score.read_json("score.json")
        names = content.get("classes") or load_manifest(shards).classes
        named = [(image, names[true], names[given], sure) for image, true, given, sure in content.get("wrong", ())]
        if named:
            benchmark = title(benchmarks.get(score.uri, score.benchmark))
            node = nodes.get(score.uri, score.uri)
            found.append(WrongTask(node, benchmark, shards, split_of(score), tuple(named[:SHOWN])))
    return found[:MAX_SCORES]


def draw_wrong(task: WrongTask) -> WrongImages:
    """Read and shrink the images of one score. IntegrityError when one is not what its index says."""
    samples = _samples(task.data, task.split, [image for image, *_ in task.named])
    images = [Image.fromarray(read_image(task.data, sample)) for sample in samples]
    photos = max(max(image.size) for image in images) >= SMALL_PX
    for image in images:
        image.thumbnail((WRONG_PX, WRONG_PX), Image.Resampling.LANCZOS)
    shown = [
        WrongImage(uri=webp_uri(_square(image), photos), actual=actual, given=given, confidence=sure)
        for image, (_, actual, given, sure) in zip(images, task.named, strict=True)
    ]
    return WrongImages(node=task.node, benchmark=task.benchmark, photos=photos, images=tuple(shown))


def _samples(data: ShardSet, split: str, numbers: Sequence[int]) -> list[Sample]:
    """Images by their number in the split, in the order asked for."""
    found: dict[int, Sample] = {}
    first = 0
    for entry in load_manifest(data).of(split):
        wanted = [number for number in numbers if first <= number < first + entry.count]
        if wanted:
            index = load_index(data, entry)
            found |= {number: Sample(index, number - first) for number in wanted}
        first += entry.count
    return [found[number] for number in numbers]


def _square(image: Image.Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """The picture in the middle of a transparent square."""
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square)
