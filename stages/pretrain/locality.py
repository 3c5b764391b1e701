"""How much of a set a machine comes to read: little where a batch fits the streams of the order. No torch.

A step's positions follow those before, and the streams take blocks of them in turn. Where a batch divides that turn, or
is so many turns, a rank comes to the same streams at every step; else to others each time, in the end to all.
"""

import math
from collections.abc import Iterator

import numpy as np

from vitpipe.stages.images.order import BLOCK, streams_of
from vitpipe.stages.training.sampler import DataParallelSampler

MACHINE = 8
"""Workers of one machine where nobody says: what a GPU machine mostly has."""


def share_read(num_images: int, batch_images: int, micro_batch: int, workers: int, beside: int = MACHINE) -> float:
    """Part of an epoch's shards, in streams, that the first machine's workers, so many `beside` each other, read."""
    turn = streams_of(num_images) * BLOCK
    here = np.zeros(turn, bool)
    for rank in range(min(beside, workers)):
        sampler = DataParallelSampler(batch_images, micro_batch, rank, workers)
        for number in sampler.numbers():
            if not sampler.is_padding(number):
                start = sampler.start(0, number)
                here[np.arange(start, start + micro_batch) % turn] = True
    apart = int(np.gcd(batch_images, turn))  # so far apart are a machine's places of one step and of all others
    found = np.tile(here.reshape(-1, apart).any(0), turn // apart)
    return float(found.reshape(-1, BLOCK).any(1).mean())


def batch_note(num_images: int, batch_images: int, micro_batch: int, workers: int, beside: int = MACHINE) -> str | None:
    """Say that a batch makes each machine read at least twice as much as one of a size near it would."""
    if workers <= beside or streams_of(num_images) == 1:
        return None
    read = share_read(num_images, batch_images, micro_batch, workers, beside)
    told = []
    for size, micro, many in _near(batch_images, micro_batch, workers):
        share = share_read(num_images, size, micro, many, beside)
        if 2 * share <= read:
            by = "" if micro == micro_batch else f" with micro_batch {micro}"
            on = "" if many == workers else f" on {many} workers"
            told.append(f"{size:,}{by}{on} ({share:.0%})")
    if not told:
        return None
    streams = f"does not fit the {streams_of(num_images)} streams of the order"
    reads = f"each machine of {beside} worker{'s' * (beside > 1)} comes to read {read:.0%} of the set"
    return f"batch_images {batch_images:,} {streams}: {reads}; near it fit {' or '.join(told)}"


def _near(batch_images: int, micro_batch: int, workers: int) -> Iterator[tuple[int, int, int]]:
    """The powers of two around a batch, a micro-batch and workers that all have as many of: these where they do.

    Workers that no power of two can be dealt to evenly are exchanged for the nearest that it can.
    """
    low = 1 << (batch_images.bit_length() - 1)
    even = workers if workers & (workers - 1) == 0 else 1 << round(math.log2(workers))
    for size in sorted({low, low if low == batch_images else 2 * low} - {batch_images}):
        if size >= even:
            fits = size % micro_batch == 0 and (size // micro_batch) % even == 0
            yield size, micro_batch if fits else 1 << ((size // even).bit_length() - 1), even
