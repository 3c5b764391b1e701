"""Training images as a pure function of the position in the endless sequence of epochs.

`micro_batch(start, count)` gives the same bytes at any number of threads, ranks or resumes; the whole state is `start`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infra.errors import UsageError
from stages.artifacts import ShardSet
from stages.images.augment import Shares, cut, mix
from stages.images.batch import Batch
from stages.images.config import AugmentSettings
from stages.images.decode import Pixels
from stages.images.keys import Ints
from stages.images.order import Order
from stages.images.prefetch import in_order
from stages.images.split import Split, open_pixels


class TrainImages:
    """One split in shuffled order, augmented. `keep` (ascending numbers in the split) makes a subset the whole.

    Labels are int64 classes; float32 (B, K) with Mixup, CutMix, a multi-label set, or `multi_hot` = K classes.
    `pinned` batches can be copied to a GPU while it works; torch keeps their memory for the next ones.
    """

    def __init__(
        self,
        shards: ShardSet | tuple[ShardSet, ...],
        split: str,
        image_px: int,
        augment: AugmentSettings,
        seed: int,
        cache: Path,
        keep: Ints | None = None,
        multi_hot: int | None = None,
        pinned: bool = False,
    ) -> None:
        self._split = Split(_only(shards), split, cache)
        self._pixels = open_pixels(self._split)
        self._image_px, self._augment, self._seed, self._pinned = image_px, augment, seed, pinned
        self._keep = np.arange(self._split.num_images) if keep is None else np.asarray(keep, dtype=np.int64)
        self._order = _order(self._split, keep, seed)
        several = augment.mixes or self._split.manifest.multi_label
        self._num_classes = multi_hot or (len(self._split.manifest.classes) if several else None)

    @property
    def num_images(self) -> int:
        """Images of an epoch."""
        return self._order.num_images

    @property
    def labels(self) -> Ints | Shares:
        """Labels of all images kept, in manifest order: (N,) classes, or (N, K) of a multi-label set."""
        return self._split.labels[self._keep]

    def micro_batch(self, start: int, count: int) -> Batch:
        """The images at positions start .. start + count - 1."""
        first, last = (start // 2 * 2, -(-(start + count) // 2) * 2) if self._augment.mixes else (start, start + count)
        positions_B = np.arange(first, last)
        numbers_B = self._keep[self._order.lookup(positions_B)[1]]
        shape = (last - first, 3, self._image_px, self._image_px)
        images_BCHW = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        cut_BCHW: Pixels = images_BCHW.numpy()
        cut(self._pixels, numbers_B.tolist(), positions_B, self._augment, self._seed, cut_BCHW)
        labels: Ints | Shares = self._split.labels[numbers_B]
        if self._num_classes is not None:
            labels = _shares(labels, self._num_classes)
            if self._augment.mixes:
                mix(cut_BCHW, labels, positions_B, self._augment, self._seed)
        asked = slice(start - first, start - first + count)
        return to_batch(images_BCHW[asked], labels[asked], positions_B[asked])

    def stream(self, ranges: Iterable[tuple[int, int]], threads: int = 1, prefetch: int = 2) -> Iterator[Batch]:
        """`micro_batch` of each (start, count), in their order, up to `prefetch` made ahead by `threads` threads."""
        return in_order(lambda asked: self.micro_batch(*asked), ranges, threads, prefetch)


def to_batch(images_BCHW: Tensor, labels: Ints | Shares, positions_B: Ints) -> Batch:
    """Tensors, every image counted; the images keep their memory."""
    numbers = torch.from_numpy(positions_B)
    return Batch(images_BCHW, torch.from_numpy(labels.copy()), torch.ones(len(labels)), numbers)


def _shares(labels: Ints | Shares, num_classes: int) -> Shares:
    """One row per image: 1 for each of its classes."""
    if labels.ndim == 2:
        return labels.astype(np.float32)
    shares_BK = np.zeros((len(labels), num_classes), dtype=np.float32)
    shares_BK[np.arange(len(labels)), labels] = 1
    return shares_BK


def _only(shards: ShardSet | tuple[ShardSet, ...]) -> ShardSet:
    if isinstance(shards, ShardSet):
        return shards
    if len(shards) != 1:
        raise UsageError("train on several ShardSets", f"{len(shards)} were given", "give one")
    return shards[0]


def _order(split: Split, keep: Ints | None, seed: int) -> Order:
    """The order of the images kept, shard by shard; named by manifest, split and subset."""
    name = f"{split.shards.manifest_sha256}/{split.split}"
    if keep is None:
        return Order(split.counts.tolist(), name, seed)
    kept = np.asarray(keep, dtype=np.int64)
    if not len(kept) or (np.diff(kept) <= 0).any() or kept[0] < 0 or kept[-1] >= split.num_images:
        raise ValueError(f"keep must be ascending numbers below {split.num_images}")
    counts = np.histogram(kept, bins=np.concatenate(([0], split.counts.cumsum())) - 0.5)[0]
    subset = hashlib.sha256(kept.astype("<i8").tobytes()).hexdigest()
    return Order(counts.tolist(), f"{name}/{subset}", seed)
