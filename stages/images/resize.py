"""Bilinear resizing of 8-bit pixels with torch's kernel: with antialias as Pillow does, without as TensorFlow does.

Of Pillow's values up to 0.3 % differ by 1: torch's weights have 16 bits.

Pixels are rounded to uint8, and so by half a level lighter on average than those of big_vision, which cuts them off.
"""

import numpy as np
import torch
import torch.nn.functional as F

from vitpipe.stages.images.area import resize_area, small_sides
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.keys import Ints

LONGEST = 8
"""An image longer than so many times its short side is cut to its middle before it is resized by the short side."""


def resize(image: Pixels, height: int, width: int, antialias: bool) -> Pixels:
    """Resize to exactly (height, width, 3); the image itself when it has that size."""
    if image.shape[:2] == (height, width):
        return image
    image_1CHW = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = F.interpolate(image_1CHW, (height, width), mode="bilinear", antialias=antialias)
    pixels: Pixels = resized[0].permute(1, 2, 0).numpy()
    return pixels


def resize_small(image: Pixels, side: int, antialias: bool) -> Pixels:
    """Bring the shorter side to `side`, keeping the aspect.

    An image longer than 8 : 1 is cut to its middle first, so that a strip of 1 x 20000 pixels stays small.
    """
    image = _no_strip(image)
    height, width = sides_of_small(np.array(image.shape[:2]), side).tolist()
    return resize(image, height, width, antialias)


def sides_of_small(shape_B2: Ints, side: int) -> Ints:
    """Heights and widths (..., 2) with the shorter one at `side`."""
    small_B2: Ints = np.rint(shape_B2 * side / shape_B2.min(axis=-1, keepdims=True)).astype(np.int64)
    return small_B2


def resize_small_by_area(image: Pixels, side: int) -> Pixels:
    """Bring the shorter side to `side` by area, as big_vision's resize_small; a strip is cut to its middle first."""
    image = _no_strip(image)
    return resize_area(image, *small_sides(np.array(image.shape[:2]), side).tolist())


def no_strips(shape_B2: Ints) -> Ints:
    """Find the middle (B, 4) of each image that is no longer than 8 : 1; mostly all of it."""
    kept_B2 = np.minimum(shape_B2, LONGEST * shape_B2.min(axis=1, keepdims=True))
    return np.concatenate(((shape_B2 - kept_B2) // 2, kept_B2), axis=1)


def _no_strip(image: Pixels) -> Pixels:
    return Box(*no_strips(np.array([image.shape[:2]]))[0].tolist()).of(image)


def centre(image: Pixels, height: int, width: int) -> Pixels:
    """Cut the middle (height, width, 3) of an image: a view."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
