"""Training crops from JPEG shards: images per CPU second of one thread, ours beside its peers, in turns.

PYTHONPATH=.:tests python -m tests.benchmarks.reading [FOLDER]
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks import peer_environment
from tests.benchmarks.photographs import KINDS, Kind, photograph_shards
from tests.benchmarks.readers import READERS
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.split import Split

ROUNDS = 7
CROPS = 200
MOVED = 0.10
DEFAULT = "webdataset + PIL + torchvision, float"
LIMIT = "limit: libjpeg-turbo decode alone"
OURS = {"vitpipe": False, "vitpipe, restart-tiled": True}


class Reader:
    """A reader that waits in its own process."""

    def __init__(self, name: str, python: Path, folder: Path) -> None:
        self.name, self.best, self.images = name, float("inf"), 0
        known = name.partition(", restart")[0]
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [python, "-m", "tests.benchmarks.readers", known, folder]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **one_thread},
        )  # fmt: skip

    def ready(self) -> bool:
        """Wait for it; False when it cannot run here."""
        assert self._process.stdout
        return any(line.strip() == "ready" for line in self._process.stdout)

    def run(self) -> None:
        """One pass; remembers the best CPU seconds of an image."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        images, cpu, _ = json.loads(self._process.stdout.readline())
        self.images, self.best = images, min(self.best, cpu / images)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def main(folder: str | None = None) -> None:
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in facts if "model name" in line), platform.machine())
    print(f"\nTraining crops of 224 px from JPEG shards, {cpu}, Python {platform.python_version()}, one thread")
    with tempfile.TemporaryDirectory() as made:
        for kind in KINDS:
            table(kind, Path(folder or made))


def table(kind: Kind, root: Path) -> None:
    """Measure all readers of one size of image and print what was found."""
    shards = {restarts: photograph_shards(root, kind, restarts) for restarts in (False, True)}
    folders = {restarts: Path(one.uri.removeprefix("file://")) for restarts, one in shards.items()}
    kilobytes = {restarts: one.image_bytes / one.splits["train"] / 1000 for restarts, one in shards.items()}
    own, theirs = Path(sys.executable), peer_environment.python()
    asked = [Reader(name, own, folders[restarts]) for name, restarts in OURS.items()]
    asked += [Reader(name, theirs, folders[False]) for name in READERS if name not in OURS]
    readers = [reader for reader in asked if reader.ready()]
    try:
        before = calibration()
        for turn in range(ROUNDS + 1):
            for reader in readers[:: -1 if turn % 2 else 1]:
                reader.run()
                if turn == 0:
                    reader.best = float("inf")  # the warm-up
        moved = abs(calibration() / before - 1)
    finally:
        for reader in asked:
            reader.end()
    best = {reader.name: 1 / reader.best for reader in readers}
    print(f"\n{kind.name}, {kilobytes[False]:.0f} KB a file in the tar, {kilobytes[True]:.0f} KB restart-tiled; "
          f"{kind.images} images, minimum of {ROUNDS} passes in turns")  # fmt: skip
    peers = {name: rate for name, rate in best.items() if name not in OURS and name != LIMIT}
    for name, rate in sorted(best.items(), key=lambda item: item[1]):
        print(f"  {name:40} {rate:7.0f} images per CPU second  {rate / best[DEFAULT]:5.2f} of the default  "
              f"{rate / max(peers.values()):5.2f} of the best peer")  # fmt: skip
    for restarts, one in shards.items():
        equal = sum(crops_equal(one, root / "cache"))
        print(f"  crops of {'restart-tiled' if restarts else 'untouched'} files that equal whole decoding, cut: "
              f"{equal} of {CROPS}")  # fmt: skip
    for reader in asked:
        if reader not in readers:
            print(f"  {reader.name:40} could not run here")
    print(f"  calibration moved {moved:.1%}{': VOID, run it again on a quiet machine' if moved > MOVED else ''}")


def crops_equal(shards: ShardSet, cache: Path) -> Iterator[bool]:
    """Whether random crops are, bit for bit, what whole decoding has there."""
    split, rng = Split(shards, "train", cache), np.random.default_rng(0)
    for number in rng.integers(0, split.num_images, CROPS).tolist():
        height, width = split.shapes(np.array([number]))[0].tolist()
        (top, low), (left, right) = np.sort(rng.integers(0, [[height], [width]], (2, 2))).tolist()
        box = Box(top, left, low - top + 1, right - left + 1)
        yield np.array_equal(split.part(number, box), box.of(split.pixels(number)))


def calibration() -> float:
    """CPU seconds of a fixed piece of work, minimum of 5."""

    def once() -> float:
        start = time.process_time()
        sum(number * number for number in range(2_000_000))
        return time.process_time() - start

    return min(once() for _ in range(5))


if __name__ == "__main__":
    main(*sys.argv[1:])
