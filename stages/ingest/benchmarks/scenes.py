"""Readers of scenes whose label is a rule on their annotations: CLEVR's json, KITTI's object lists."""

import json
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitpipe.stages.ingest.benchmarks import entries as official
from vitpipe.stages.ingest.benchmarks.entries import UNREADABLE, OfficialImage, OfficialListing, Reader, damaged
from vitpipe.stages.ingest.benchmarks.registry import Benchmark

CLEVR_DISTANCES = (8.0, 8.5, 9.0, 9.5, 10.0)
"""Edges between the classes of the closest object's distance, in the units of pixel_coords."""
KITTI_DISTANCES = (8.0, 20.0, 999.0)
"""Edges between the classes of the closest vehicle's distance, metres; beyond the last there is none."""
KITTI_VEHICLES = ("Car", "Van", "Truck")
KITTI_SEED = 123


def _clevr(benchmark: Benchmark, root: Path) -> OfficialListing:
    """The n-th scene of a split's json belongs to its n-th image by name; `test` has no scenes."""
    entries = []
    for split, word in (("train", "train"), ("validation", "val")):
        path = root / "scenes" / f"CLEVR_{word}_scenes.json"
        for scene in scenes(path):
            with official.reading(path, "a scene is not as they are"):
                file, objects = str(scene["image_filename"]), scene["objects"]
                distances = [float(np.float32(each["pixel_coords"][2])) for each in objects]  # theirs are float32
            label = len(objects) - 3 if benchmark.task == "count" else over(min(distances, default=0), CLEVR_DISTANCES)
            entries.append(OfficialImage(f"images/{word}/{file}", split, (label,), key=file))
    return OfficialListing(entries, benchmark.classes)


def scenes(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of the list `scenes`, one at a time: all at once would take gigabytes."""
    decoder = json.JSONDecoder()
    with official.reading(path):
        text = path.read_text(encoding="utf-8")
        at = text.index("[", text.index('"scenes"')) + 1
        while (at := _skipped(text, at)) < len(text) and text[at] != "]":
            scene, at = decoder.raw_decode(text, at)
            yield scene
            at = _skipped(text, at)
            at += text[at : at + 1] == ","
        if at >= len(text):
            raise ValueError("its list of scenes does not end")


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def over(value: float, edges: tuple[float, ...]) -> int:
    """How many edges lie below the value: VTAB's `max(where((edges - value) < 0))` with an edge below all."""
    return bisect_left(edges, value)


def _kitti(benchmark: Benchmark, root: Path) -> OfficialListing:
    split_of = kitti_splits(root / "mapping" / "train_rand.txt", root / "mapping" / "train_mapping.txt")
    entries = []
    for number, split in enumerate(split_of):
        path = root / "training" / "label_2" / f"{number:06d}.txt"
        nearest = min(_vehicles(path), default=1000.0)
        name = f"{number:06d}.png"
        entries.append(OfficialImage(f"training/image_2/{name}", split, (over(nearest, KITTI_DISTANCES),), key=name))
    return OfficialListing(entries, benchmark.classes)


def _vehicles(path: Path) -> Iterator[float]:
    """Distances ahead, metres: the 14th of 15 columns."""
    for line in official.list_lines(path):
        columns = line.split()
        try:
            if columns[0] in KITTI_VEHICLES:
                yield float(columns[13])
        except UNREADABLE as error:
            raise damaged(path, f"a line says {line!r}") from error


def kitti_splits(rand: Path, mapping: Path) -> list[str]:
    """The split of each image: whole videos, a tenth of them each, drawn as TensorFlow Datasets does."""
    try:
        lines = mapping.read_text(encoding="utf-8").splitlines()
        videos = [lines[int(number) - 1].split(" ")[1] for number in rand.read_text(encoding="utf-8").split(",")]
    except UNREADABLE as error:
        raise damaged(rand, f"it does not fit {mapping.name}: {error}") from error
    rng = np.random.RandomState(KITTI_SEED)
    known = sorted(set(videos))
    tenth = max(1, 10 * len(known) // 100)
    test = set(rng.choice(known, tenth, replace=False).tolist())
    validation = set(rng.choice(sorted(set(known) - test), tenth, replace=False).tolist())
    return ["test" if video in test else "validation" if video in validation else "train" for video in videos]


CLEVR, KITTI = Reader(_clevr), Reader(_kitti)
