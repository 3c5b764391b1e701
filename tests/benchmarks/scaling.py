"""Two reading threads beside one, and how soon a reader stands at any position. Wall time: wants two idle cores.

PYTHONPATH=.:tests python -m tests.benchmarks.scaling [FOLDER]
"""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks import peer_environment
from tests.benchmarks.photographs import KINDS, photograph_shards
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images import decoded_split
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import decode_part
from vitpipe.stages.images.header import Header
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.train import TrainImages

ROUNDS, BATCHES, BATCH = 7, 12, 32
IMAGENET_SHARDS = [1250] * 1025
"""Images of each shard of a set of 1.28 million."""


def main(folder: str | None = None) -> None:
    torch.set_num_threads(1)
    decoded_split.DECODED_BYTES = 0
    with tempfile.TemporaryDirectory() as made:
        root = Path(folder or made)
        shards = photograph_shards(root, KINDS[0], False)
        threads(shards, root / "cache")
        resume(shards, root / "cache")


def threads(shards: ShardSet, cache: Path) -> None:
    """Training batches, and plain decoding in C as what the machine's cores can give together."""
    images = TrainImages(shards, "train", 224, AugmentSettings(), 0, cache)
    ranges = [(number * BATCH, BATCH) for number in range(BATCHES)]
    files = [images._split._bytes(0, row) for row in range(min(BATCH * 4, images.num_images))]
    whole = Box(0, 0, KINDS[0].height, KINDS[0].width)

    def read(count: int) -> Callable[[], object]:
        return lambda: list(images.stream(ranges, threads=count, prefetch=count))

    def decode(count: int) -> Callable[[], object]:
        def one(share: list[np.ndarray]) -> None:
            for data in share:
                decode_part(data, Header("jpg", whole.width, whole.height), whole)

        def run() -> None:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(one, [files[place::count] for place in range(count)]))

        return run

    best = {(name, count): float("inf") for name in ("read", "decode") for count in (1, 2)}
    for _ in range(ROUNDS):
        for name, count in best:
            run = read(count) if name == "read" else decode(count)
            best[name, count] = min(best[name, count], _seconds(run))
    print(f"\nTwo threads beside one, wall time, minimum of {ROUNDS} in turns")
    print(f"  training batches                  {best['read', 1] / best['read', 2]:.2f} times as fast")
    print(f"  limit: whole decoding alone, in C {best['decode', 1] / best['decode', 2]:.2f} times as fast")


def resume(shards: ShardSet, cache: Path) -> None:
    """From a number of samples seen to the first image, in an epoch of 1.28 million and in the measured set."""
    import webdataset as wds

    opened = max(_seconds(lambda at=at: _first(shards, cache, at)) for at in (0, 10**6, 10**9, 10**9 + 7, 123_456_789))
    order = [_seconds(lambda at=at: Order(IMAGENET_SHARDS, "digest", 0).lookup(np.arange(at, at + 64)))
             for at in (0, 640_000, 10**9)]  # fmt: skip
    tars = sorted(str(path) for path in Path(shards.uri.removeprefix("file://")).rglob("train-*.tar"))
    count = sum(shards.splits.values())
    passed = min(_seconds(lambda: list(itertools.islice(_samples(wds, tars), count))) for _ in range(3)) / count
    half = sum(IMAGENET_SHARDS) // 2
    print("\nResume at any position")
    print(f"  vitpipe: open the set and cut the first image {1000 * opened:.0f} ms; "
          f"the order of 1.28 million images at any position {1000 * max(order):.0f} ms")  # fmt: skip
    print(f"  webdataset: reads what it passes, {1e6 * passed:.0f} us an image: "
          f"{passed * half:.0f} s to the middle of 1.28 million")  # fmt: skip
    for images in (count, sum(IMAGENET_SHARDS)):
        print(f"  Mosaic streaming, {images} samples of a number each: {_mosaic(cache.parent, images)}")


def _mosaic(root: Path, images: int) -> str:
    """From opening the set to the first sample, at the slowest of three positions."""
    command = [peer_environment.python(), "-m", "tests.benchmarks.mosaic_resume", root / f"mds-{images}", str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "could not run here" if done.returncode else f"{1000 * float(done.stdout.split()[-1]):.0f} ms"


def _first(shards: ShardSet, cache: Path, at: int) -> None:
    TrainImages(shards, "train", 224, AugmentSettings(), 0, cache).micro_batch(at, 1)


def _samples(wds, tars: list[str]):
    return iter(wds.WebDataset(tars, shardshuffle=False, empty_check=False))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
