"""Evaluation images: each exactly once, in manifest order, however many ranks share them."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

import numpy as np
import torch

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.augment import SoftLabels
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.config import before_crop_px
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.prefetch import in_order
from vitpipe.stages.images.prepare import prepare
from vitpipe.stages.images.resize import centre, resize, resize_small
from vitpipe.stages.images.split import Split, open_pixels
from vitpipe.stages.images.train import to_batch
from vitpipe.stages.preparation import Fit, Preparation


class EvalImages:
    """One split, or its images `keep` in that order. No randomness.

    `resize_px` is the side before the centre crop; left out, `before_crop_px` chooses it. A Preparation in place of
    `resize` says all of it. Without `labelled` no class is looked at, and all are 0.
    """

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        image_px: int,
        resize: Fit | Preparation,
        cache: Path,
        keep: Ints | None = None,
        resize_px: int | None = None,
        antialias: bool = True,
        labelled: bool = True,
    ) -> None:
        self._split = Split(shards, split, cache, labelled)
        self._pixels = open_pixels(self._split)
        self.image_px, self._preparation = image_px, (resize, resize_px, antialias)
        self._keep = np.arange(self._split.num_images) if keep is None else np.asarray(keep, dtype=np.int64)

    @staticmethod
    def labels_of(shards: ShardSet, split: str, cache: Path) -> Ints | SoftLabels:
        """Read the labels of a whole split without its images: (N,), or (N, K) of a multi-label set."""
        return Split(shards, split, cache).labels

    @property
    def num_images(self) -> int:
        """Images over all ranks."""
        return len(self._keep)

    @property
    def labels(self) -> Ints | SoftLabels:
        """Labels in the order of all ranks' batches together."""
        return self._split.labels[self._keep]

    def batches(self, batch_images: int, rank: int = 0, world_size: int = 1, threads: int = 1) -> Iterator[Batch]:
        """Yield the rank's contiguous share in batches; over all ranks each image comes exactly once.

        `positions_B` are numbers in the split. Shares differ by at most one image, so a rank may have one batch fewer.
        """
        begin, end = (edge * self.num_images // world_size for edge in (rank, rank + 1))
        starts = range(begin, end, batch_images)
        return in_order(lambda start: self._batch(start, min(start + batch_images, end)), starts, threads, threads)

    def _batch(self, start: int, end: int) -> Batch:
        numbers_B = self._keep[start:end]
        images_BCHW = np.empty((len(numbers_B), 3, self.image_px, self.image_px), dtype=np.uint8)
        self._pixels.gather(numbers_B.tolist())
        for row_CHW, number in zip(images_BCHW, numbers_B.tolist(), strict=True):
            image = fitted(self._pixels.pixels(number), self.image_px, *self._preparation)
            row_CHW[...] = image.transpose(2, 0, 1)
        return to_batch(torch.from_numpy(images_BCHW), self._split.labels_of(numbers_B), numbers_B)


def fitted(
    image: Pixels, image_px: int, fit: Fit | Preparation, resize_px: int | None = None, antialias: bool = True
) -> Pixels:
    """Bring one image to (image_px, image_px, 3); without `resize_px`, `before_crop_px` chooses it.

    A Preparation says all of it by itself.
    """
    if isinstance(fit, Preparation):
        return prepare(image, image_px, fit)
    if fit == "squash":
        return resize(image, image_px, image_px, antialias)
    before = resize_px or before_crop_px(image_px)
    if fit == "resize_crop":
        image = resize(image, before, before, antialias)
    elif fit == "resmall_crop":
        image = resize_small(image, before, antialias)
    else:
        assert_never(fit)
    return centre(image, image_px, image_px)
