"""Resizing by area as tf.image.resize(method="area") does, the filter of big_vision's resize_small.

Sums run in TensorFlow's order in single precision (core/kernels/image/resize_area_op.cc), and the result is cut off to
uint8, not rounded, as big_vision's pp/ops_image.py casts it: a level where a sum ends below a whole one.
"""

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.extension import Bytes
from vitpipe.stages.images.keys import Ints

Floats = npt.NDArray[np.float32]


def resize_area(image: Bytes, height: int, width: int) -> Bytes:
    """Resize to exactly (height, width, 3): the mean over each pixel's area, parts of pixels counted by their part."""
    if image.shape[:2] == (height, width):
        return image
    down, right = (np.float32(old) / np.float32(new) for old, new in zip(image.shape, (height, width), strict=False))
    rows = _summed(image.transpose(1, 0, 2).astype(np.float32), width, right).transpose(1, 0, 2)
    mean = _summed(rows, height, down) * np.float32(1 / float(down * right))
    cut_off: Bytes = np.clip(mean, 0, 255).astype(np.uint8)
    return cut_off


def small_sides(shape_B2: Ints, side: int) -> Ints:
    """Heights and widths (..., 2) with the shorter one at `side`, rounded as TensorFlow rounds in single precision."""
    factor = np.float32(side) / shape_B2.min(axis=-1, keepdims=True).astype(np.float32)
    small_B2: Ints = np.rint(shape_B2.astype(np.float32) * factor).astype(np.int64)
    return small_B2


def _summed(lines: Floats, count: int, scale: np.float32) -> Floats:
    """Sum lines (N, ...) into `count` of them, each over `scale` of the old ones, whose parts count at the ends."""
    begin = np.arange(count, dtype=np.float32) * scale
    end = (np.arange(count, dtype=np.float32) + np.float32(1)) * scale
    start, stop = np.floor(begin).astype(np.int64), np.ceil(end).astype(np.int64)
    sums = np.zeros((count, *lines.shape[1:]), dtype=np.float32)
    for tap in range(int((stop - start).max())):
        place = start + tap
        within = np.where(place + 1 > end, scale, place + 1 - begin)  # of a pixel that began before
        part = np.where(place < begin, within, np.where(place + 1 > end, end - place, 1))
        part = np.where(place < stop, part, 0).astype(np.float32)
        taken = lines[np.clip(place, 0, len(lines) - 1)]
        sums += taken * part.reshape(-1, *[1] * (lines.ndim - 1))
    return sums
