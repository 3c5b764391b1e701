"""From decoded images to the pixels of a batch: crop, flip and RandAugment.

Every draw is keyed by (seed, position in the endless sequence), so an image is the same in whatever batch and on
whatever rank it comes.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, assert_never

import numpy as np

from vitpipe.stages.images import crops
from vitpipe.stages.images.config import AugmentSettings, RandAugmentSettings, before_crop_px
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.extension import mirror
from vitpipe.stages.images.keys import Ints, uniforms
from vitpipe.stages.images.randaugment.kinds import draws_for, rand_augment
from vitpipe.stages.images.resize import resize, resize_small, resize_small_by_area


class PixelSource(Protocol):
    """Whatever gives images by number: a split, or a split kept decoded."""

    def shape(self, number: int) -> tuple[int, int]:
        """Height and width of one image, upright."""

    def pixels(self, number: int) -> Pixels:
        """One image (height, width, 3), not to be written to."""

    def part(self, number: int, box: crops.Box) -> Pixels:
        """What `pixels` has in `box`, decoding no more than needed where the format allows it."""


def cut(
    source: PixelSource,
    numbers: Sequence[int],
    positions_B: Ints,
    settings: AugmentSettings,
    seed: int,
    cut_BCHW: Pixels,
) -> None:
    """Crop, resize and flip each image into its row of a (B, 3, image_px, image_px) uint8 array."""
    image_px = cut_BCHW.shape[2]
    flipped = (uniforms(positions_B, 1, "flip", seed)[:, 0] < 0.5).tolist() if settings.flip else [False] * len(numbers)
    tries = crops.crop_tries(positions_B, seed) if settings.crop != "none" else [iter(())] * len(numbers)
    for b, number in enumerate(numbers):
        cut_HWC = _cropped(source, number, settings, image_px, tries[b])
        if flipped[b]:
            mirror(np.ascontiguousarray(cut_HWC.transpose(2, 0, 1)), cut_BCHW[b])
        else:
            cut_BCHW[b] = cut_HWC.transpose(2, 0, 1)
    if settings.randaugment is not None:
        _vary(cut_BCHW, positions_B, settings.randaugment, seed)


def _cropped(
    source: PixelSource, number: int, settings: AugmentSettings, image_px: int, tries: Iterator[Sequence[float]]
) -> Pixels:
    """One image cropped and resized to (image_px, image_px, 3)."""
    if settings.crop == "none":
        return resize(source.pixels(number), image_px, image_px, settings.antialias)
    if settings.crop == "random_resized":
        box = crops.random_resized(*source.shape(number), settings.min_area or crops.TORCHVISION_MIN_AREA, tries)
        return resize(source.part(number, box), image_px, image_px, settings.antialias)
    if settings.crop == "inception":
        box = crops.inception(*source.shape(number), settings.min_area or crops.INCEPTION_MIN_AREA, tries)
        return resize(source.part(number, box), image_px, image_px, settings.antialias)
    if settings.crop == "pad":
        _, _, top, left = next(tries)
        whole = resize(source.pixels(number), image_px, image_px, settings.antialias)
        return crops.shifted(whole, settings.pad_px or crops.PAD_PX, top, left)
    image, side = source.pixels(number), settings.resize_px or before_crop_px(image_px)
    if settings.crop == "resmall":
        image = resize_small(image, side, settings.antialias)
    elif settings.crop == "area_small":
        image = resize_small_by_area(image, side)
    elif settings.crop == "resize":
        image = resize(image, side, side, settings.antialias)
    else:
        assert_never(settings.crop)
    _, _, top, left = next(tries)
    room = (int(top * (image.shape[0] - image_px + 1)), int(left * (image.shape[1] - image_px + 1)))
    return crops.Box(*room, image_px, image_px).of(image)


def _vary(cut_BCHW: Pixels, positions_B: Ints, settings: RandAugmentSettings, seed: int) -> None:
    draws_BD = uniforms(positions_B, draws_for(settings), "randaugment", seed)
    for row_CHW, draws in zip(cut_BCHW, draws_BD, strict=True):
        row_CHW[...] = rand_augment(row_CHW, settings, draws)
