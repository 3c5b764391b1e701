"""Which part of an image a training crop takes: the distributions of torchvision and of TensorFlow.

Knows no files. The caller gives the draws, uniform in [0, 1).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.keys import Floats, Ints, uniforms

TORCHVISION_MIN_AREA = 0.08
INCEPTION_MIN_AREA = 0.05
PAD_PX = 4
"""Border of a padded crop, the usual one for CIFAR's 32 px (He et al. 2016, section 4.2)."""
_TRIES_AT_ONCE = 10
LOG_RATIOS = (math.log(3 / 4), math.log(4 / 3))
"""Of the narrowest and the widest box that torchvision draws."""


class Box(NamedTuple):
    """A part of an image, pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Cut the box from an image (height, width, 3): a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def random_resized(height: int, width: int, min_area: float, tries: Iterator[Sequence[float]]) -> Box:
    """Choose a box as torchvision's RandomResizedCrop.get_params does, ratio 3/4 to 4/3: ten tries, then the middle."""
    low, high = LOG_RATIOS
    for area, aspect, top, left in (next(tries) for _ in range(10)):
        target = height * width * (min_area + area * (1 - min_area))
        ratio = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)
    h, w = height, width
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def inception(height: int, width: int, min_area: float, tries: Iterator[Sequence[float]]) -> Box:
    """Choose a box as TensorFlow's sample_distorted_bounding_box does without given boxes.

    Ratio 0.75 to 1.33, 100 tries, then the whole image. Follows GenerateRandomCrop of
    core/kernels/image/sample_distorted_bounding_box_op.cc, its half-open offsets included.
    """
    for aspect, size, top, left in (next(tries) for _ in range(100)):
        shape = _inception_shape(height, width, min_area, 0.75 + aspect * (1.33 - 0.75), size)
        if shape is not None:
            h, w = shape
            return Box(int(top * (height - h)), int(left * (width - w)), h, w)
    return Box(0, 0, height, width)


def _inception_shape(height: int, width: int, min_area: float, ratio: float, draw: float) -> tuple[int, int] | None:
    least = min_area * height * width
    most = float(height * width)
    h, highest = round(math.sqrt(least / ratio)), round(math.sqrt(most / ratio))
    if round(highest * ratio) > width:
        highest = int((width + 0.5 - 1e-7) / ratio)
        highest -= round(highest * ratio) > width
    highest = min(highest, height)
    h = min(h, highest)
    h += int(draw * (highest - h + 1))
    if h * round(h * ratio) < least:
        h += 1
    if h * round(h * ratio) > most:
        h -= 1
    w = round(h * ratio)
    fits = least <= h * w <= most and 0 < w <= width and 0 < h <= height
    return (h, w) if fits else None


def square(image: npt.NDArray[np.uint8], top: int, left: int, side: int) -> npt.NDArray[np.uint8]:
    """Cut (side, side, 3) out of an image (height, width, 3), from (top, left) on; black where that lies outside."""
    height, width = image.shape[:2]
    if min(top, left) >= 0 and top + side <= height and left + side <= width:
        return Box(top, left, side, side).of(image)
    black = np.zeros((side, side, 3), dtype=np.uint8)
    part = image[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    Box(max(0, -top), max(0, -left), *part.shape[:2]).of(black)[...] = part
    return black


def draws_of(positions_B: Ints, seed: int) -> Floats:
    """Draw what the first ten tries of each crop take (B, 10, 4)."""
    return uniforms(positions_B, 4 * _TRIES_AT_ONCE, "crop", seed).reshape(len(positions_B), _TRIES_AT_ONCE, 4)


def crop_tries(positions_B: Ints, seed: int) -> list[Iterator[Sequence[float]]]:
    """Make an endless supply of four draws for each position; the first ten are drawn for all positions at once."""
    first = draws_of(positions_B, seed)
    return [_tries(positions_B[b : b + 1], seed, first[b].tolist()) for b in range(len(positions_B))]


def _tries(position_1: Ints, seed: int, ready: list[list[float]]) -> Iterator[Sequence[float]]:
    page = 0
    while True:
        yield from ready
        page += 1
        ready = uniforms(position_1, 4 * _TRIES_AT_ONCE, "crop", seed, page).reshape(_TRIES_AT_ONCE, 4).tolist()
