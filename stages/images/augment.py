"""From decoded images to the pixels of a batch: crop, flip, RandAugment, and Mixup or CutMix of neighbours.

Every draw is keyed by (seed, position in the endless sequence), so an image is the same in whatever batch and on
whatever rank it comes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from vitpipe.stages.images import crops
from vitpipe.stages.images.config import AugmentSettings, RandAugmentSettings, before_crop_px
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.extension import mirror
from vitpipe.stages.images.keys import Ints, uniforms
from vitpipe.stages.images.randaugment.kinds import draws_for, rand_augment
from vitpipe.stages.images.resize import resize, resize_small

SoftLabels = npt.NDArray[np.float32]
"""(B, K): the share of each class in each image."""


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


def mix(cut_BCHW: Pixels, labels_BK: SoftLabels, positions_B: Ints, settings: AugmentSettings, seed: int) -> None:
    """Blend or paste rows 2k and 2k+1 into each other, in place; `positions_B` begins at an even position.

    Each row of a pair keeps a share of at least 1/2 of itself (AugReg takes the larger part as well); labels follow.
    """
    draws_P4 = uniforms(positions_B[::2] // 2, 4, "mix", seed)
    for pair, (kind, share, top, left) in enumerate(draws_P4.tolist()):
        rows = slice(2 * pair, 2 * pair + 2)
        pastes = settings.mixup == 0 or (settings.cutmix > 0 and kind < 0.5)
        alpha = settings.cutmix if pastes else settings.mixup
        own = float(betaincinv(alpha, alpha, share))
        own = max(own, 1 - own)
        if pastes:
            own = _paste(cut_BCHW[rows], own, top, left)
        else:
            blend = own * cut_BCHW[rows] + (1 - own) * cut_BCHW[rows][::-1]
            cut_BCHW[rows] = np.rint(blend)
        labels_BK[rows] = own * labels_BK[rows] + (1 - own) * labels_BK[rows][::-1]


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


def _paste(pair_2CHW: Pixels, own: float, top: float, left: float) -> float:
    """Swap a box of about 1 - own of the area between two images (CutMix, Yun et al. 2019). Returns the share kept."""
    side = pair_2CHW.shape[2]
    half = math.sqrt(1 - own) * side / 2
    y0, y1 = (round(min(max(top * side + edge, 0), side)) for edge in (-half, half))
    x0, x1 = (round(min(max(left * side + edge, 0), side)) for edge in (-half, half))
    pair_2CHW[:, :, y0:y1, x0:x1] = pair_2CHW[::-1, :, y0:y1, x0:x1].copy()
    return float(1 - (y1 - y0) * (x1 - x0) / (side * side))
