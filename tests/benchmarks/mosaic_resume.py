"""`python -m tests.benchmarks.mosaic_resume FOLDER IMAGES`, in the peers' environment: Mosaic streaming's resume.

Seconds from opening a set of as many samples, a number each, to the first sample at a position; the slowest of three.
"""

import sys
import time
from pathlib import Path

from streaming import MDSWriter, StreamingDataset


def main() -> None:
    folder, images = Path(sys.argv[1]), int(sys.argv[2])
    if not folder.exists():
        with MDSWriter(out=str(folder), columns={"number": "int"}) as writer:
            for number in range(images):
                writer.write({"number": number})
    opened(folder, 0)  # imports and shared memory
    print(max(opened(folder, at) for at in (0, images // 2, images - 100)))


def opened(folder: Path, at: int) -> float:
    start = time.perf_counter()
    made = StreamingDataset(local=str(folder), shuffle=True, batch_size=64, num_canonical_nodes=1)
    made.load_state_dict({
        "epoch": 0, "sample_in_epoch": at, "num_canonical_nodes": 1, "shuffle_seed": made.shuffle_seed,
        "initial_physical_nodes": 1,
    })  # fmt: skip
    next(iter(made))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
