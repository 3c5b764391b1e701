"""How well batches are shuffled: distinct shards and classes in a batch, and runs of one class, beside the ideal.

    PYTHONPATH=.:tests python -m tests.benchmarks.shuffling

Numbers only, no images. The images lie sorted by class, as no ingest of ours leaves them: what is measured is the order
alone. The ideal is a permutation of the whole epoch; webdataset is its own shard shuffle and buffer, at the sizes of
its documentation (1000) and ten times that.
"""

import random
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from webdataset import filters

from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.order import Order

BATCH = 4096
BATCHES = 40
SHARD = 1000
"""Images of a shard."""
SETS = (("ImageNet-1k", 1_281_000, 1000), ("ImageNet-21k", 14_197_000, 21_841))


def main() -> None:
    print(f"\nShuffle of batches of {BATCH}, images sorted by class in shards of {SHARD}, mean of {BATCHES} batches")
    print(f"  {'':14}{'':26}{'shards':>9}{'classes':>9}{'longest run of a class':>25}")
    for name, images, classes in SETS:
        for who, numbers in _readers(images).items():
            shards, seen, run = measured(numbers(), images, classes)
            print(f"  {name:14}{who:26}{shards:9.0f}{seen:9.0f}{run:25d}")


def measured(numbers: Ints, images: int, classes: int) -> tuple[float, float, int]:
    """Mean distinct shards and classes of a batch, and the longest run of one class, of sample numbers in order."""
    labels = numbers * classes // images
    batches = (numbers // SHARD).reshape(-1, BATCH), labels.reshape(-1, BATCH)
    shards, seen = (float(np.mean([len(np.unique(batch)) for batch in of])) for of in batches)
    edges = np.flatnonzero(np.diff(labels)) + 1
    runs = np.diff(np.concatenate(([0], edges, [len(labels)])))
    return shards, seen, int(runs.max())


def _readers(images: int) -> dict[str, Callable[[], Ints]]:
    count = BATCH * BATCHES

    def ours() -> Ints:
        return Order([SHARD] * (images // SHARD), "bench", 0).lookup(np.arange(count))[1]

    def ideal() -> Ints:
        return np.random.default_rng(0).permutation(images)[:count]

    return {
        "the ideal": ideal,
        "vitpipe": ours,
        "webdataset, buffer 1000": lambda: webdataset_order(images, 1000, count),
        "webdataset, buffer 10000": lambda: webdataset_order(images, 10_000, count),
    }


def webdataset_order(images: int, buffer: int, count: int) -> Ints:
    """Shards in random order, read one after another through webdataset's own shuffle buffer."""
    shards = random.Random(0).sample(range(images // SHARD), images // SHARD)
    stream: Iterator[Any] = chain.from_iterable(range(shard * SHARD, (shard + 1) * SHARD) for shard in shards)
    shuffled = filters._shuffle(stream, bufsize=buffer, initial=buffer, rng=random.Random(1))
    return np.fromiter(islice(shuffled, count), dtype=np.int64, count=count)


if __name__ == "__main__":
    main()
