"""From decoded images to the pixels of a batch: crop, flip, RandAugment, and Mixup or CutMix of neighbours.

Every draw is keyed by (seed, position in the endless sequence): a batch is the same however it is cut or dealt.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betaincinv

from stages.images.config import AugmentSettings, RandAugmentSettings, before_crop_px
from stages.images.crops import INCEPTION_MIN_AREA, TORCHVISION_MIN_AREA, Box, crop_tries, inception, random_resized
from stages.images.decode import Pixels
from stages.images.keys import Ints, uniforms
from stages.images.randaugment import DRAWS_PER_LAYER, rand_augment
from stages.images.resize import resize, resize_small

Shares = npt.NDArray[np.float32]
"""(B, K) share of each class."""


def cut(images: Sequence[Pixels], positions_B: Ints, settings: AugmentSettings, image_px: int, seed: int) -> Pixels:
    """Crop, resize and flip each image into one (B, image_px, image_px, 3) uint8 array."""
    cut_BHWC = np.empty((len(images), image_px, image_px, 3), dtype=np.uint8)
    if settings.crop == "none":
        for b, image in enumerate(images):
            cut_BHWC[b] = resize(image, image_px, image_px, settings.antialias)
    else:
        for b, (image, tries) in enumerate(zip(images, crop_tries(positions_B, seed), strict=True)):
            cut_BHWC[b] = _crop(image, settings, image_px, tries)
    if settings.flip:
        flipped_B = uniforms(positions_B, 1, "flip", seed)[:, 0] < 0.5
        cut_BHWC[flipped_B] = cut_BHWC[flipped_B, :, ::-1]
    if settings.randaugment is not None:
        _vary(cut_BHWC, positions_B, settings.randaugment, seed)
    return cut_BHWC


def mix(cut_BHWC: Pixels, labels_BK: Shares, positions_B: Ints, settings: AugmentSettings, seed: int) -> None:
    """Blend or paste rows 2k and 2k+1 into each other, in place; `positions_B` begins at an even one.

    Both rows of a pair keep the share lam >= 1/2 of their own (AugReg takes the larger part as well) and labels follow.
    """
    draws_P4 = uniforms(positions_B[::2] // 2, 4, "mix", seed)
    for pair, (kind, share, top, left) in enumerate(draws_P4.tolist()):
        rows = slice(2 * pair, 2 * pair + 2)
        pastes = settings.mixup == 0 or (settings.cutmix > 0 and kind < 0.5)
        alpha = settings.cutmix if pastes else settings.mixup
        own = float(betaincinv(alpha, alpha, share))
        own = max(own, 1 - own)
        if pastes:
            own = _paste(cut_BHWC[rows], own, top, left)
        else:
            blend = own * cut_BHWC[rows] + (1 - own) * cut_BHWC[rows][::-1]
            cut_BHWC[rows] = np.rint(blend)
        labels_BK[rows] = own * labels_BK[rows] + (1 - own) * labels_BK[rows][::-1]


def _crop(image: Pixels, settings: AugmentSettings, image_px: int, tries: Iterator[Sequence[float]]) -> Pixels:
    height, width = image.shape[:2]
    if settings.crop == "random_resized":
        box = random_resized(height, width, settings.min_area or TORCHVISION_MIN_AREA, tries)
        return resize(_part(image, box), image_px, image_px, settings.antialias)
    if settings.crop == "inception":
        box = inception(height, width, settings.min_area or INCEPTION_MIN_AREA, tries)
        return resize(_part(image, box), image_px, image_px, settings.antialias)
    side = settings.resize_px or before_crop_px(image_px)
    if settings.crop == "resmall":
        image = resize_small(image, side, settings.antialias)
    else:
        image = resize(image, side, side, settings.antialias)
    _, _, top, left = next(tries)
    room = (int(top * (image.shape[0] - image_px + 1)), int(left * (image.shape[1] - image_px + 1)))
    return _part(image, Box(*room, image_px, image_px))


def _part(image: Pixels, box: Box) -> Pixels:
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def _vary(cut_BHWC: Pixels, positions_B: Ints, settings: RandAugmentSettings, seed: int) -> None:
    draws_BD = uniforms(positions_B, DRAWS_PER_LAYER * settings.layers, "randaugment", seed)
    for row_HWC, draws in zip(cut_BHWC, draws_BD, strict=True):
        varied_CHW = rand_augment(torch.from_numpy(row_HWC).permute(2, 0, 1), settings, draws)
        row_HWC[...] = varied_CHW.permute(1, 2, 0).numpy()


def _paste(pair_2HWC: Pixels, own: float, top: float, left: float) -> float:
    """Swap one box of about 1 - own of the area between two images (CutMix, Yun et al. 2019); the share really kept."""
    side = pair_2HWC.shape[1]
    half = math.sqrt(1 - own) * side / 2
    y0, y1 = (round(min(max(top * side + edge, 0), side)) for edge in (-half, half))
    x0, x1 = (round(min(max(left * side + edge, 0), side)) for edge in (-half, half))
    pair_2HWC[:, y0:y1, x0:x1] = pair_2HWC[::-1, y0:y1, x0:x1].copy()
    return float(1 - (y1 - y0) * (x1 - x0) / (side * side))
