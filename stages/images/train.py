"""Training images as a pure function of the position in the endless sequence of epochs.

`micro_batch(start, count)` gives the same bytes at any number of threads, ranks or resumes; `start` is the state.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.augment import begin as begin_cuts
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.config import AugmentSettings, MixupSettings
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.decoded_split import open_pixels
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.mixing import SoftLabels, mix, partners
from vitpipe.stages.images.ordering import order_of
from vitpipe.stages.images.prefetch import InParts, in_parts, most_ahead
from vitpipe.stages.images.split import Split

PART_PIXELS = 8 * 224 * 224
"""Pixels that one thread makes at a time."""


class TrainImages:
    """One split in shuffled order, augmented. `keep` (ascending numbers in the split) restricts it to a subset.

    Several sets are mixed: `shares` are the parts of a block of the sequence that each set has.
    Labels are int64 classes; float32 (B, K) with Mixup, CutMix, a multi-label set, or `multi_hot` = K classes.
    `batch_images` is that of a step, which Mixup within a step needs.
    `pinned` batches can be copied to a GPU while it computes; torch reuses their memory for the next ones.
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
        batch_images: int | None = None,
    ) -> None:
        self._split = Split(shards, split, cache, labelled)
        self._pixels = open_pixels(self._split)
        self._image_px, self._augment, self._seed, self._pinned = image_px, augment, seed, pinned
        self._keep = None if keep is None else np.asarray(keep, dtype=np.int64)
        self._order = order_of(self._split, keep, seed, shares)
        if batch_images is None and augment.mixes and augment.mixing != MixupSettings(alpha=augment.mixing.alpha):
            do = "give `batch_images`, or leave Mixup's pairing and per at their defaults"
            raise UsageError("mix images with those of their step", "its number of images is not given", do)
        self._batch_images = batch_images or 1
        several = augment.mixes or self._split.multi_label
        self._num_classes = multi_hot or (len(self._split.classes) if several else None)

    @property
    def num_images(self) -> int:
        """Images of an epoch."""
        return self._order.num_images

    @property
    def labels(self) -> Ints | SoftLabels:
        """Labels of all images used, in manifest order: (N,) classes, or (N, K) of a multi-label set."""
        return self._split.labels if self._keep is None else self._split.labels[self._keep]

    def keys(self, positions: Iterable[int]) -> list[str]:
        """Find the WebDataset key of the image at each position of the endless sequence."""
        numbers = self._numbers(np.fromiter(positions, dtype=np.int64))
        return [self._split.key(number) for number in numbers.tolist()]

    def _numbers(self, positions_B: Ints) -> Ints:
        """Numbers in the split of the images at these positions."""
        numbers_B = self._order.lookup(positions_B)[1]
        return numbers_B if self._keep is None else self._keep[numbers_B]

    def micro_batch(self, start: int, count: int) -> Batch:
        """Make the batch of positions start .. start + count - 1."""
        return self.begin(start, count).made()

    def begin(self, start: int, count: int) -> InParts[Batch]:
        """Fetch what `micro_batch` is made of, and share it out in parts."""
        wanted_B = np.arange(start, start + count)
        partners_B = partners(wanted_B, self._augment, self._batch_images) if self._augment.mixes else wanted_B
        positions_B = np.union1d(wanted_B, partners_B)
        numbers_B = self._numbers(positions_B)
        self._pixels.gather(numbers_B.tolist())
        shape = (len(positions_B), 3, self._image_px, self._image_px)
        images_BCHW = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        cut_BCHW: Pixels = images_BCHW.numpy()
        each = images_a_part(self._image_px)

        cut = begin_cuts(self._pixels, numbers_B, positions_B, self._augment, self._seed, cut_BCHW)

        def done() -> Batch:
            begin = int(np.searchsorted(positions_B, start))
            wanted, labels = slice(begin, begin + count), self._split.labels_of(numbers_B)
            if self._num_classes is not None:
                labels = soft_BK = _soft_labels(labels, self._num_classes)
                if self._augment.mixes:
                    others = np.searchsorted(positions_B, partners_B)
                    pairs = cut_BCHW[wanted], soft_BK[wanted], cut_BCHW[others], soft_BK[others]
                    mix(*pairs, wanted_B, self._augment, self._seed, self._batch_images)
            return to_batch(images_BCHW[wanted], labels[wanted], wanted_B)

        rows = (slice(first, first + each) for first in range(0, len(positions_B), each))
        return InParts([partial(cut, some) for some in rows], done)

    def stream(
        self,
        ranges: Sequence[tuple[int, int]],
        threads: int = 1,
        prefetch: int | None = None,
        then: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> Iterator[Batch]:
        """Yield `then(micro_batch(start, count))` of each range in order, made by `threads` together.

        Up to `prefetch` further ones are made early, or what the threads need and memory allows. Shards are fetched
        before they are needed.
        """
        if prefetch is None:
            count = ranges[0][1] if ranges else 1
            prefetch = batches_ahead(count, self._image_px, threads)
        with self._pixels.looked_ahead(self._order, ranges) as reached:

            def begin(pair: tuple[int, int]) -> InParts[Batch]:
                reached(pair[0])
                return self.begin(*pair).then(then)

            yield from in_parts(begin, ranges, threads, prefetch)


def images_a_part(image_px: int) -> int:
    """Images that one thread makes at a time: enough to be worth handing out, few enough for all to have some."""
    return max(1, PART_PIXELS // image_px**2)


def batches_ahead(batch_images: int, image_px: int, threads: int) -> int:
    """Batches of so many images to make ahead: what the threads need, and memory allows."""
    return most_ahead(batch_images * 3 * image_px**2, -(-batch_images // images_a_part(image_px)), threads)


def to_batch(images_BCHW: Tensor, labels: Ints | SoftLabels, positions_B: Ints) -> Batch:
    """Make a batch in which every image has weight 1; the images are not copied."""
    numbers = torch.from_numpy(positions_B)
    return Batch(images_BCHW, torch.from_numpy(labels.copy()), torch.ones(len(labels)), numbers)


def _soft_labels(labels: Ints | SoftLabels, num_classes: int) -> SoftLabels:
    """(B, num_classes): 1 for each class of an image. The model may have more classes than a multi-label set."""
    shares_BK = np.zeros((len(labels), num_classes), dtype=np.float32)
    if labels.ndim == 2:
        shares_BK[:, : labels.shape[1]] = labels
    else:
        shares_BK[np.arange(len(labels)), labels] = 1
    return shares_BK
