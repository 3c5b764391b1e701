"""Our sample order for any training loop: batches for torch's DataLoader, or samples for a webdataset pipeline.

Both come in the order of `stages.images.order` at any number of ranks and loader workers; the whole state is one
integer, the samples seen.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from webdataset import FluidWrapper

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.named_shards import named_shards
from vitpipe.stages.images.ordering import order_of
from vitpipe.stages.images.split import Split
from vitpipe.stages.images.train import TrainImages

TOGETHER = 256
"""Images whose shards are fetched together, several in parallel."""


def _user_cache() -> Path:
    """The folder for shards among this user's caches, by the XDG rules. It may be removed whenever nobody reads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitpipe" / "shards"


@dataclass(frozen=True)
class ShardStream(IterableDataset[tuple[Tensor, Tensor]]):
    """A committed ShardSet in its endless order; each of W ranks gets its share of every global batch.

    Iterating gives decoded batches, uint8 (B/W, 3, image_px, image_px) with their labels, all 0 for a set without
    classes, for a loader with `batch_size=None`; `samples` gives what webdataset reads. Each iteration begins at
    `samples_seen`.
    """

    shards: ShardSet | str | Path | tuple[ShardSet | str | Path, ...]
    """A ShardSet, or where one was committed: `runs/quickstart/glyphs`, `s3://bucket/runs/i21k/shards`. Several sets
    need `shares` too."""
    batch_images: int | None = None
    """Images of the global batch, over all ranks; left out, one a rank, for batches that are made after the loader."""
    image_px: int | None = None
    """Side of the decoded images; `samples` decodes none."""
    cache: Path | str = field(kw_only=True, default_factory=_user_cache)
    """Local folder for verified copies of shards; processes may share it. Left out, one among the user's caches
    (`~/.cache/vitpipe/shards`), shared by all streams; the least recently used make room when the disk is full."""
    split: str = "train"
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """How the decoded batches are cut and varied."""
    shares: tuple[float, ...] = ()
    """Share of each of several sets, which every block of the stream has exactly."""
    seed: int = 0
    samples_seen: int = 0
    """Where the stream begins, in images over all ranks."""
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name, least in (("batch_images", 1), ("world_size", 1), ("rank", 0), ("samples_seen", 0)):
            value = self.batch if name == "batch_images" else getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                asked = f"stream images with {name} {value!r}"
                raise UsageError(asked, "it is no such number", f"give {least} or more")
        if self.batch % self.world_size or not self.rank < self.world_size:
            asked = f"stream batches of {self.batch} images for rank {self.rank}"
            found = f"{self.world_size} ranks cannot share them equally, or there is no such rank"
            raise UsageError(asked, found, "give a batch that is a multiple of the ranks, and a rank from 0 on")
        places = tuple(self.shards) if isinstance(self.shards, list | tuple) else (self.shards,)
        if len(self.shares) != (len(places) if len(places) > 1 else 0):
            found = f"{len(places)} sets and {len(self.shares)} shares"
            raise UsageError("stream images", found, "give each of several sets its share, and one set none")
        object.__setattr__(
            self, "shards", tuple(named_shards(place, "stream images of") for place in places)
        )  # looked up once, not by every worker

    @property
    def batch(self) -> int:
        """Images of the global batch: as asked for, or one for each rank."""
        return self.world_size if self.batch_images is None else self.batch_images

    @classmethod
    def open(cls, uri: str, batch_images: int, image_px: int, cache: Path) -> "ShardStream":
        """Stream decoded batches of the ShardSet committed at `uri`; `with_` sets the other fields."""
        return cls(uri, batch_images, image_px, cache=cache)

    def with_(self, **fields: object) -> "ShardStream":
        """Copy the stream with other fields; `samples_seen` resumes it."""
        return replace(self, **fields)  # type: ignore[arg-type]

    def samples(self) -> FluidWrapper:
        """Make a source for `wds.DataPipeline` with the methods of `wds.WebDataset` (`decode`, `map`, `batched`, ...).

        It gives endless dicts of `__key__`, `__url__`, the image's bytes under its extension, and its `cls` or `json`.
        A loader asks its workers in turn, so each worker has to give one turn at a time: with `.batched(share)`, where
        share is batch_images / world_size, workers make whole batches; with batch_images left out they make single
        samples, to be batched after the loader.
        """
        return FluidWrapper(_Samples(self))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.image_px is None:
            raise UsageError("stream decoded images", "no size is given", "give `image_px`, or use `samples()`")
        images = TrainImages(
            self._sets,
            self.split,
            self.image_px,
            self.augment,
            self.seed,
            Path(self.cache),
            shares=self.shares,
            labelled=any(one.num_classes for one in self._sets),
            batch_images=self.batch,
        )
        for start, count in self.turns():
            batch = images.micro_batch(start, count)
            yield batch.images_BCHW, batch.labels

    def turns(self) -> Iterator[tuple[int, int]]:
        """Yield first position and number of images of each turn that this loader worker makes for its rank."""
        worker = get_worker_info()
        first, apart = (worker.id, worker.num_workers) if worker else (0, 1)
        share = self.batch // self.world_size
        start = self.samples_seen + first * self.batch + self.rank * share
        while True:
            yield start, share
            start += apart * self.batch

    def numbered(self) -> Iterator[dict[str, str | bytes]]:
        """Yield the samples of all turns, as `samples` gives them."""
        split = Split(self._sets, self.split, Path(self.cache))
        order = order_of(split, None, self.seed, self.shares)
        for start, count in self.turns():
            numbers = order.lookup(np.arange(start, start + count))[1].tolist()
            for begin in range(0, count, TOGETHER):
                split.gather(numbers[begin : begin + TOGETHER])
                yield from map(split.sample, numbers[begin : begin + TOGETHER])

    @property
    def _sets(self) -> tuple[ShardSet, ...]:
        assert isinstance(self.shards, tuple)
        return tuple(one for one in self.shards if isinstance(one, ShardSet))


@dataclass(frozen=True)
class _Samples(IterableDataset[dict[str, str | bytes]]):
    """What webdataset takes as a pipeline's first stage."""

    stream: ShardStream

    def __iter__(self) -> Iterator[dict[str, str | bytes]]:
        return self.stream.numbered()
