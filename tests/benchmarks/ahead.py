"""Shards fetched ahead beside shards fetched when a batch needs them: simulated on clusters, and behind a slow store.

PYTHONPATH=.:tests python -m tests.benchmarks.ahead
"""

import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tests.benchmarks.photographs import KINDS, photograph_shards
from vitpipe.infra.storage.local import LocalStore
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images import decoded_split
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.order import Order, Window
from vitpipe.stages.images.prefetch import InParts, in_parts
from vitpipe.stages.images.train import TrainImages

IMAGE_BYTES = 110_000
SHARD_BYTES = 256_000_000
Fetched = tuple[int, int]
"""Epoch and shard."""


@dataclass(frozen=True)
class Cluster:
    """What trains on what; a node is a machine of eight ranks, and its link is for the store alone."""

    name: str
    images: int
    ranks: int
    batch: int
    images_s: float
    """Images a second of one GPU."""
    gbit: float

    @property
    def step_s(self) -> float:
        """Seconds that a step computes."""
        return self.batch / self.ranks / self.images_s

    @property
    def bytes_s(self) -> float:
        """Bytes a second that a node can fetch."""
        return self.gbit * 1e9 / 8


CLUSTERS = (
    Cluster("ImageNet-1k, L/16 on 8 GPUs", 1_281_167, 8, 4096, 1080, 25),
    Cluster("ImageNet-21k, L/16 on 64 GPUs", 14_197_122, 64, 4096, 1080, 25),
    Cluster("the same, a link of 11 Gbit/s", 14_197_122, 64, 4096, 1080, 11),
    Cluster("300M images, H/14 on 512 GPUs", 303_000_000, 512, 4096, 300, 25),
)


def main() -> None:
    print("\nShare of the time that steps wait for images, simulated with the real order (epochs 1 and 2, one node)")
    for cluster in CLUSTERS:
        print(f"  {cluster.name:32} {waits(cluster)}")
    with tempfile.TemporaryDirectory() as root:
        throttled(photograph_shards(Path(root), KINDS[0], False), Path(root))


def waits(cluster: Cluster) -> str:
    """Both ways beside each other, on as many steps as two epochs have, or the first 6,000."""
    each = SHARD_BYTES // IMAGE_BYTES
    order = Order([each] * (cluster.images // each) + [cluster.images % each], "digest", 0)
    steps = min(2 * cluster.images // cluster.batch, 6000)
    share = cluster.batch // cluster.ranks * min(8, cluster.ranks)
    needed = [_node(order, step * cluster.batch + np.arange(share)) for step in range(steps)]
    first, before = _when_needed(cluster, needed)
    first_ahead, after = _ahead(cluster, order, needed, share)
    need = share * IMAGE_BYTES / cluster.step_s / cluster.bytes_s
    return (f"when needed {100 * before:5.1f} %, first step after {first:6.1f} s; ahead {100 * after:4.1f} %, "
            f"{first_ahead:4.1f} s; average need {100 * need:.0f} % of the link")  # fmt: skip


def _node(order: Order, positions: np.ndarray) -> dict[Fetched, int]:
    """Images of a step by epoch and shard, for one node: a shard is fetched anew in every epoch."""
    epochs, numbers = order.lookup(positions)
    shards = np.searchsorted(order.counts.cumsum(), numbers, side="right")
    return Counter(zip(epochs.tolist(), shards.tolist(), strict=True))


def _when_needed(cluster: Cluster, needed: list[dict[Fetched, int]]) -> tuple[float, float]:
    """Seconds to the first step, and the share of the later time that steps wait; one is loaded while one computes."""
    here = set[Fetched]()
    clock = _Clock(cluster)
    for wanted in needed:
        clock.step(len(wanted.keys() - here) * SHARD_BYTES / cluster.bytes_s)
        here |= wanted.keys()
    return clock.first, clock.waiting


def _ahead(cluster: Cluster, order: Order, needed: list[dict[Fetched, int]], share: int) -> tuple[float, float]:
    """The same, with single images of shards that have not come yet, and the link's other time for what comes."""
    here, coming, seen = set[Fetched](), deque[Fetched](), set[Window]()
    clock, looked, spare = _Clock(cluster), 0, 0.0
    for step, wanted in enumerate(needed):
        while looked < len(needed) and looked * cluster.batch < step * cluster.batch + order.turn:
            for window in order.windows_at(looked * cluster.batch + np.arange(0, share, 32)):
                if window not in seen:
                    seen.add(window)
                    coming.extend((window[0], shard) for shard in order.shards_of(window).tolist())
            looked += 1
        single = sum(count for shard, count in wanted.items() if shard not in here) * IMAGE_BYTES / cluster.bytes_s
        spare += max(0.0, clock.step(single) - single) * cluster.bytes_s
        while coming and spare >= SHARD_BYTES:
            here.add(coming.popleft())
            spare -= SHARD_BYTES
        spare = spare if coming else 0.0
    return clock.first, clock.waiting


@dataclass
class _Clock:
    """Steps one after another, each loaded while the one before computes."""

    cluster: Cluster
    first: float = -1.0
    steps: int = 0
    loaded: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    def step(self, loading_s: float) -> float:
        """One more step; seconds since the last one ended, and this one did."""
        before = self.ended
        self.loaded = max(self.loaded, self.began) + loading_s
        self.began = max(self.loaded, self.ended)
        self.ended = self.began + self.cluster.step_s
        self.first = self.began if self.first < 0 else self.first
        self.steps += 1
        return self.ended - before

    @property
    def waiting(self) -> float:
        """Share of the time since the first step that was not computed."""
        return max(0.0, 1 - self.steps * self.cluster.step_s / (self.ended - self.first))


class Throttle:
    """One link of so many bytes a second for all that is read from a store."""

    def __init__(self, bytes_s: float) -> None:
        self._bytes_s, self._free_at, self._lock = bytes_s, 0.0, threading.Lock()

    def passes(self, count: int) -> None:
        """Wait until so many bytes have passed."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._bytes_s
            wait = self._free_at - time.monotonic()
        time.sleep(max(0.0, wait))

    @contextmanager
    def before_the_store(self) -> Iterator[None]:
        """Everything that `LocalStore` gives passes the link."""
        read, chunks = LocalStore.read, LocalStore._chunks

        def slow_read(store: LocalStore, name: str, *of: int) -> bytes:
            data = read(store, name, *of)
            self.passes(len(data))
            return data

        def slow_chunks(store: LocalStore, name: str, start: int) -> Iterator[bytes]:
            for chunk in chunks(store, name, start):
                for begin in range(0, len(chunk), 65_536):
                    self.passes(len(chunk[begin : begin + 65_536]))
                yield chunk

        with mock.patch.object(LocalStore, "read", slow_read), mock.patch.object(LocalStore, "_chunks", slow_chunks):
            yield


def throttled(shards: ShardSet, root: Path) -> None:
    """Three epochs of photographs whose steps need 60 % of a link on average, ahead and not."""
    torch.set_num_threads(1)
    decoded_split.DECODED_BYTES = 0
    images, total = sum(shards.splits.values()), sum(entry.bytes for entry in load_manifest(shards).shards)
    ranges = [(start, 16) for start in range(0, 3 * images // 16 * 16, 16)]
    step_s = 0.25
    bytes_s = total / images * 16 / step_s / 0.6
    outcomes = {}
    for name in ("when needed", "ahead"):
        shutil.rmtree(root / "cold", ignore_errors=True)
        train = TrainImages(shards, "train", 224, AugmentSettings(), 0, root / "cold")
        with Throttle(bytes_s).before_the_store():
            made = train.stream(ranges, 2) if name == "ahead" else in_parts(partial(_begin, train), ranges, 2, 4)
            outcomes[name] = _consume(made, step_s)
    print(f"\nBehind a store of {bytes_s / 1e6:.1f} MB/s; steps of {step_s} s; {total / 1e6:.0f} MB of shards")
    for name, (first, waited, _) in outcomes.items():
        print(f"  {name:12} first batch after {first:5.2f} s, later waits {100 * waited:4.1f} % of the time")
    print(f"  pixels equal: {outcomes['ahead'][2] == outcomes['when needed'][2]}")


def _begin(train: TrainImages, pair: tuple[int, int]) -> InParts[Batch]:
    return train.begin(*pair)


def _consume(made: Iterator[Batch], step_s: float) -> tuple[float, float, list[int]]:
    """Seconds to the first batch, share of the later time that was waited, and what the batches were."""
    began, seen = time.monotonic(), []
    seen.append(hash(next(made).images_BCHW.numpy().tobytes()))
    first = time.monotonic()
    for batch in made:
        seen.append(hash(batch.images_BCHW.numpy().tobytes()))
        time.sleep(step_s)
    spent = time.monotonic() - first
    return first - began, 1 - step_s * (len(seen) - 1) / spent, seen


if __name__ == "__main__":
    main()
