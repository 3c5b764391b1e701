"""Bilinear resizing of 8-bit pixels with torch's kernel: with antialias as Pillow does, without as TensorFlow does.

Pixels are rounded to uint8, and so by half a level lighter on average than those of big_vision, which cuts them off.
"""

import torch
import torch.nn.functional as F

from vitpipe.stages.images.area import resize_area, small_sides
from vitpipe.stages.images.decode import Pixels

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
    height, width = image.shape[:2]
    short = min(height, width)
    return resize(image, round(height * side / short), round(width * side / short), antialias)


def resize_small_by_area(image: Pixels, side: int) -> Pixels:
    """Bring the shorter side to `side` by area, as big_vision's resize_small; a strip is cut to its middle first."""
    image = _no_strip(image)
    return resize_area(image, *small_sides(image.shape[0], image.shape[1], side))


def _no_strip(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    short = min(height, width)
    return centre(image, min(height, LONGEST * short), min(width, LONGEST * short))


def centre(image: Pixels, height: int, width: int) -> Pixels:
    """Cut the middle (height, width, 3) of an image: a view."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
