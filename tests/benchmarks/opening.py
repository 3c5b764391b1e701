"""A set of 20,000 shards opened by a rank: seconds and memory, with a first batch, cold and warm; a tenth beside it."""

import multiprocessing
import tempfile
import time
from pathlib import Path

from tests.many_shards import many_shards, opening

SIZES = (2_000, 20_000)
IMAGES = 700
"""Images of a shard: 20,000 of them are about ImageNet-21k."""
BATCHES = (64, 4096)
"""A rank of 64, and one alone, which reads from all streams of the order."""


def main() -> None:
    """Print one line a size, batch and state of the cache."""
    print(f"shards of {IMAGES} images; seconds and MB from the record to the first batch, imports aside")
    with tempfile.TemporaryDirectory() as made:
        for shards in SIZES:
            folder = Path(made, str(shards))
            many_shards(folder, shards, IMAGES)
            for batch in BATCHES:
                for state in ("cold", "warm"):
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        pool.apply(_import)
                        began = time.perf_counter()
                        grown, _ = pool.apply(opening, (folder, Path(made, f"cache-{shards}-{batch}"), batch))
                        taken = time.perf_counter() - began
                    print(
                        f"{shards:6} shards, batch {batch:5}, {state}: {taken:6.2f} s {grown / 1e6:6.0f} MB", flush=True
                    )


def _import() -> None:
    import vitpipe.stages.images.train  # noqa: F401
