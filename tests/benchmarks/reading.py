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

from tests.benchmarks import decoders, peer_environment
from tests.benchmarks.photographs import KINDS, OTHER_FORMATS, Kind, photograph_shards
from tests.benchmarks.readers import READERS
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.header import FORMATS
from vitpipe.stages.images.split import Split

ROUNDS = 7
CROPS = 200
MOVED = 0.10
DEFAULT = "webdataset + PIL + torchvision, float"
LIMIT = "limit: libjpeg-turbo decode alone"
OURS = {"vitpipe": False, "vitpipe, restart-tiled": True}
OF_ANY_FORMAT = (DEFAULT, "timm, uint8", "PIL, resize(box=)", "torchvision decode_image + v2", *decoders.OF_ANY_FORMAT)


class Reader:
    """A reader that waits in its own process."""

    def __init__(self, name: str, python: Path, folder: Path) -> None:
        self.name, self.best, self.images = name, float("inf"), 0
        self.pixels, self.lacks = "", ""
        known = name.partition(", restart")[0]
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [python, "-m", "tests.benchmarks.readers", known, folder]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **one_thread},
        )  # fmt: skip

    def ready(self) -> bool:
        """Wait for it; False when it cannot run here, for what it lacks."""
        assert self._process.stdout
        for line in self._process.stdout:
            said, _, more = line.strip().partition(" ")
            if said == "ready":
                return True
            if said == "pixels":
                self.pixels = more
            elif said == "lacks":
                self.lacks = more
        return False

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
    print(f"\nTraining crops of 224 px from shards, {cpu}, Python {platform.python_version()}, one thread")
    with tempfile.TemporaryDirectory() as made:
        for kind in (*KINDS, *OTHER_FORMATS):
            table(kind, Path(folder or made))


def table(kind: Kind, root: Path) -> None:
    """Measure all readers of one size and format of image and print what was found."""
    is_jpeg = kind.form == "JPEG"
    shards = {
        restarts: photograph_shards(root, kind, restarts) for restarts in ((False, True) if is_jpeg else (False,))
    }
    folders = {restarts: Path(one.uri.removeprefix("file://")) for restarts, one in shards.items()}
    own, theirs = Path(sys.executable), peer_environment.python()
    asked = [Reader(name, own, folders[restarts]) for name, restarts in OURS.items() if restarts in shards]
    asked += [
        Reader(name, theirs, folders[False]) for name in (READERS if is_jpeg else OF_ANY_FORMAT) if name not in OURS
    ]
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
    sizes = ", ".join(f"{one.image_bytes / one.splits['train'] / 1000:.0f} KB" for one in shards.values())
    print(f"\n{kind.name}, {sizes} a file in the tar{' (restart-tiled the second)' * is_jpeg}; {kind.images} images, "
          f"minimum of {ROUNDS} passes in turns")  # fmt: skip
    rows(readers)
    for restarts, one in shards.items():
        equal = sum(crops_equal(one, root / "cache"))
        print(f"  crops of {'restart-tiled' if restarts else 'untouched'} files that equal whole decoding, cut: "
              f"{equal} of {CROPS}")  # fmt: skip
    for reader in asked:
        if reader not in readers:
            print(f"  {reader.name:40} could not run here: {reader.lacks}")
    print(f"  calibration moved {moved:.1%}{': VOID, run it again on a quiet machine' if moved > MOVED else ''}")


def rows(readers: list[Reader]) -> None:
    """Print a line each, the slowest first. Who gives other pixels is no peer."""
    best = {reader.name: 1 / reader.best for reader in readers}
    other = {reader.name for reader in readers if reader.pixels.startswith("other")}
    peers = {name: rate for name, rate in best.items() if name not in OURS and name != LIMIT and name not in other}
    for reader in sorted(readers, key=lambda one: best[one.name]):
        rate = best[reader.name]
        print(f"  {reader.name:40} {rate:7.0f} images per CPU second  {rate / best[DEFAULT]:5.2f} of the default  "
              f"{rate / max(peers.values()):5.2f} of the best peer  {reader.pixels}")  # fmt: skip


def crops_equal(shards: ShardSet, cache: Path) -> Iterator[bool]:
    """Whether random crops are, bit for bit, what Pillow's whole decoding has there."""
    split, rng, pillow = Split(shards, "train", cache), np.random.default_rng(0), decoders.pillow()
    for number in rng.integers(0, split.num_images, CROPS).tolist():
        height, width = split.shapes(np.array([number]))[0].tolist()
        (top, low), (left, right) = np.sort(rng.integers(0, [[height], [width]], (2, 2))).tolist()
        box = Box(top, left, low - top + 1, right - left + 1)
        file = next(data for name, data in split.sample(number).items() if name in FORMATS and isinstance(data, bytes))
        yield np.array_equal(split.part(number, box), pillow(np.frombuffer(file, dtype=np.uint8))[2](*box))


def calibration() -> float:
    """CPU seconds of a fixed piece of work, minimum of 5."""

    def once() -> float:
        start = time.process_time()
        sum(number * number for number in range(2_000_000))
        return time.process_time() - start

    return min(once() for _ in range(5))


if __name__ == "__main__":
    main(*sys.argv[1:])
