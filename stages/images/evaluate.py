"""Evaluation images: each exactly once, in manifest order, however many ranks share them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np
import torch

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.config import before_crop_px
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.decoded_split import open_pixels
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.mixing import SoftLabels
from vitpipe.stages.images.prefetch import InParts, in_parts
from vitpipe.stages.images.prepare import prepare
from vitpipe.stages.images.resize import centre, resize, resize_small, resize_small_by_area
from vitpipe.stages.images.split import Split
from vitpipe.stages.images.train import batches_ahead, images_a_part, to_batch
from vitpipe.stages.preparation import EvalFit, EvalWay, Preparation


class EvalImages:
    """One split, or its images `keep` in that order. No randomness.

    A name in place of the whole way low-passes, and leaves the side before a centre crop to `before_crop_px`. Without
    `labelled` no class is looked at, and all are 0.
    """

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        image_px: int,
        resize: EvalFit | EvalWay,
        cache: Path,
        keep: Ints | None = None,
        labelled: bool = True,
    ) -> None:
        self._split = Split(shards, split, cache, labelled)
        self._pixels = open_pixels(self._split)
        self.image_px, self._way = image_px, resize if isinstance(resize, EvalWay) else EvalWay(resize)
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
        ahead = batches_ahead(batch_images, self.image_px, threads)
        return in_parts(lambda start: self._begin(start, min(start + batch_images, end)), starts, threads, ahead)

    def _begin(self, start: int, end: int) -> InParts[Batch]:
        numbers_B = self._keep[start:end]
        images_BCHW = np.empty((len(numbers_B), 3, self.image_px, self.image_px), dtype=np.uint8)
        self._pixels.gather(numbers_B.tolist())
        each = images_a_part(self.image_px)

        def part(first: int) -> None:
            rows = slice(first, first + each)
            for row_CHW, number in zip(images_BCHW[rows], numbers_B[rows].tolist(), strict=True):
                image = fitted(self._pixels.pixels(number), self.image_px, self._way)
                row_CHW[...] = image.transpose(2, 0, 1)

        def done() -> Batch:
            return to_batch(torch.from_numpy(images_BCHW), self._split.labels_of(numbers_B), numbers_B)

        return InParts([partial(part, first) for first in range(0, len(numbers_B), each)], done)


def fitted(image: Pixels, image_px: int, way: EvalWay) -> Pixels:
    """Bring one image to (image_px, image_px, 3)."""
    if isinstance(way.fit, Preparation):
        return prepare(image, image_px, way.fit)
    if way.fit == "squash":
        return resize(image, image_px, image_px, way.antialias)
    before = max(way.resize_px or before_crop_px(image_px), image_px)
    if way.fit == "resize_crop":
        image = resize(image, before, before, way.antialias)
    elif way.fit == "resmall_crop":
        image = resize_small(image, before, way.antialias)
    elif way.fit == "area_small":
        image = resize_small_by_area(image, before)
    else:
        assert_never(way.fit)
    return centre(image, image_px, image_px)
