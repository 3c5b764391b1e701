"""Training images as a pure function of the position in the endless sequence of epochs.

`micro_batch(start, count)` gives the same bytes at any number of threads, ranks or resumes; the whole state is `start`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.augment import Shares, cut, mix
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.ordering import order_of
from vitpipe.stages.images.prefetch import in_order, most_ahead
from vitpipe.stages.images.split import Split, open_pixels


class TrainImages:
    """One split in shuffled order, augmented. `keep` (ascending numbers in the split) makes a subset the whole.

    Several sets are mixed: `shares` says how many images of each there are in any stretch of the sequence.
    Labels are int64 classes; float32 (B, K) with Mixup, CutMix, a multi-label set, or `multi_hot` = K classes.
    `pinned` batches can be copied to a GPU while it works; torch keeps their memory for the next ones.
    """

    def __init__(
        self,
        shards: ShardSet | Sequence[ShardSet],
        split: str,
        image_px: int,
        augment: AugmentSettings,
        seed: int,
        cache: Path | ShardCache,
        keep: Ints | None = None,
        multi_hot: int | None = None,
        shares: Sequence[float] = (),
        labelled: bool = True,
        pinned: bool = False,
    ) -> None:
        self._split = Split(shards, split, cache, labelled)
        self._pixels = open_pixels(self._split)
        self._image_px, self._augment, self._seed, self._pinned = image_px, augment, seed, pinned
        self._keep = None if keep is None else np.asarray(keep, dtype=np.int64)
        self._order = order_of(self._split, keep, seed, shares)
        several = augment.mixes or self._split.multi_label
        self._num_classes = multi_hot or (len(self._split.classes) if several else None)

    @property
    def num_images(self) -> int:
        """Images of an epoch."""
        return self._order.num_images

    @property
    def labels(self) -> Ints | Shares:
        """Labels of all images kept, in manifest order: (N,) classes, or (N, K) of a multi-label set."""
        return self._split.labels if self._keep is None else self._split.labels[self._keep]

    def keys(self, positions: Iterable[int]) -> list[str]:
        """The WebDataset key of the image at each position of the endless sequence."""
        numbers = self._numbers(np.fromiter(positions, dtype=np.int64))
        return [self._split.key(number) for number in numbers.tolist()]

    def _numbers(self, positions_B: Ints) -> Ints:
        """Of the images in the split."""
        numbers_B = self._order.lookup(positions_B)[1]
        return numbers_B if self._keep is None else self._keep[numbers_B]

    def micro_batch(self, start: int, count: int) -> Batch:
        """The images at positions start .. start + count - 1."""
        first, last = (start // 2 * 2, -(-(start + count) // 2) * 2) if self._augment.mixes else (start, start + count)
        positions_B = np.arange(first, last)
        numbers_B = self._numbers(positions_B)
        self._pixels.gather(numbers_B.tolist())
        shape = (last - first, 3, self._image_px, self._image_px)
        images_BCHW = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        cut_BCHW: Pixels = images_BCHW.numpy()
        cut(self._pixels, numbers_B.tolist(), positions_B, self._augment, self._seed, cut_BCHW)
        labels: Ints | Shares = self._split.labels_of(numbers_B)
        if self._num_classes is not None:
            labels = _shares(labels, self._num_classes)
            if self._augment.mixes:
                mix(cut_BCHW, labels, positions_B, self._augment, self._seed)
        asked = slice(start - first, start - first + count)
        return to_batch(images_BCHW[asked], labels[asked], positions_B[asked])

    def ahead(self, count: int) -> int:
        """How many micro-batches of `count` images to make ahead: by their bytes."""
        return most_ahead(count * 3 * self._image_px**2)

    def stream(self, ranges: Iterable[tuple[int, int]], threads: int = 1, prefetch: int = 2) -> Iterator[Batch]:
        """`micro_batch` of each (start, count), in their order, up to `prefetch` made ahead by `threads` threads."""
        return in_order(lambda asked: self.micro_batch(*asked), ranges, threads, prefetch)


def to_batch(images_BCHW: Tensor, labels: Ints | Shares, positions_B: Ints) -> Batch:
    """Tensors, every image counted; the images keep their memory."""
    numbers = torch.from_numpy(positions_B)
    return Batch(images_BCHW, torch.from_numpy(labels.copy()), torch.ones(len(labels)), numbers)


def _shares(labels: Ints | Shares, num_classes: int) -> Shares:
    """One row per image: 1 for each of its classes. The model may have more classes than a multi-label set."""
    shares_BK = np.zeros((len(labels), num_classes), dtype=np.float32)
    if labels.ndim == 2:
        shares_BK[:, : labels.shape[1]] = labels
    else:
        shares_BK[np.arange(len(labels)), labels] = 1
    return shares_BK
