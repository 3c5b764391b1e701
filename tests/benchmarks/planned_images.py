"""What an image of a training batch takes beside what a plan reckons: by format, size and augmentation. CPU time.

PYTHONPATH=.:tests python -m tests.benchmarks.planned_images [FOLDER]
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.photographs import KINDS, OTHER_FORMATS, Kind, photograph_shards
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images import decoded_split
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.image_costs import image_work
from vitpipe.stages.images.train import TrainImages

PX, BATCH, ROUNDS, PASS = 224, 64, 7, 128
"""Images of a pass: two batches."""
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop": {},
    **{
        f"{kind}, two layers": {"randaugment": {"kind": kind, "layers": 2, "magnitude": 9}}
        for kind in ("torchvision", "big_vision", "timm")
    },
    "Mixup": {"mixup": 0.2},
    "CutMix": {"cutmix": 1.0},
}


def main(root: str | None = None) -> None:
    """By the JPEGs the core is told from the plan's; all else is beside that."""
    torch.set_num_threads(1)
    decoded_split.DECODED_BYTES = 0  # as for a set that does not fit into memory
    with tempfile.TemporaryDirectory() as made:
        folder = Path(root or made)
        passes: dict[str, Callable[[], None]] = {}
        planned: dict[str, float] = {}
        for kind in (*KINDS, *OTHER_FORMATS):
            shards = photograph_shards(folder, kind, restart_intervals=False)
            for name, changes in AUGMENTATIONS.items() if kind is KINDS[0] else [("crop", {})]:
                row = f"{kind.name}, {name}"
                augment = AugmentSettings.model_validate(changes)
                passes[row] = _pass(shards, augment, folder / "cache", kind)
                planned[row] = image_work(augment, shards, PX).milliseconds()
        found = {row: float("inf") for row in passes}
        for _ in range(ROUNDS):
            for row, run in passes.items():
                start = time.thread_time()
                run()
                found[row] = min(found[row], (time.thread_time() - start) * 1000 / PASS)
        jpeg = [f"{kind.name}, crop" for kind in KINDS]
        speed = sum(planned[row] for row in jpeg) / sum(found[row] for row in jpeg)
        print(f"\nMilliseconds an image, training batches at {PX} px, one thread; a core {speed:.2f} times the plan's")
        print("measured | planned for such a core | their ratio")
        for row, milliseconds in found.items():
            told = planned[row] / speed
            print(f"{row:40} {milliseconds:7.3f} {told:7.3f} {milliseconds / told:5.2f}")


def _pass(shards: ShardSet, augment: AugmentSettings, cache: Path, kind: Kind) -> Callable[[], None]:
    images = TrainImages(shards, "train", PX, augment, 0, cache)
    starts = iter(range(0, 10**9, min(BATCH, kind.images)))

    def run() -> None:
        for _ in range(-(-PASS // min(BATCH, kind.images))):
            images.micro_batch(next(starts), min(BATCH, kind.images))

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
