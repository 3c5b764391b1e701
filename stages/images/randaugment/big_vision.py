"""RandAugment as big_vision has it (pp/archive/autoaugment.py, from TensorFlow's TPU models): the AugReg paper's.

Sixteen operations, none of them the identity, and full strength at magnitude 10. `tfa.image`'s nearest pixels, its
black alpha filled with 128. Thresholds and shifts wrap at 256, as there: their numbers become uint8.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.extension import Bytes
from vitpipe.stages.images.keys import Floats
from vitpipe.stages.images.planes import LEVELS, planes_by

FILL = 128
ROTATE_DEGREES, SHEAR, TRANSLATE_PX, CUTOUT_PX = 30.0, 0.3, 100.0, 40
"""At full strength (_rotate_level_to_arg and the lines below it; HParams of distort_image_with_randaugment)."""

Operation = Callable[[Bytes, float, Sequence[float]], Bytes]
"""(planes, magnitude / 10, two draws in [0, 1)) -> planes."""


def autocontrast(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Stretch each plane to 0 .. 255."""
    return _by_tables(planes, [_stretched(plane.min(), plane.max()) for plane in planes])


def equalize(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Give each plane all levels about equally often."""
    return equalized(planes)


def invert(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Turn light to dark."""
    return 255 - planes


def rotate(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Turn about the middle, either way."""
    angle = float(np.float32(_either(level * ROTATE_DEGREES, draws)) * np.float32(math.pi / 180))
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    down, right = (np.float32(side - 1) for side in planes.shape[1:])
    x = (right - (cos * right - sin * down)) / np.float32(2)
    y = (down - (sin * right + cos * down)) / np.float32(2)
    return planes_by().nearest(planes, np.array([cos, -sin, x, sin, cos, y]), FILL)


def posterize(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Keep the upper int(4 x level) bits; 1 for none, 8 for more than all of them but 1 again."""
    shift = min((8 - int(level * 4)) % 256, 7)  # TensorFlow shifts a byte by at most 7
    kept: Bytes = planes >> np.uint8(shift) << np.uint8(shift)
    return kept


def solarize(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Invert what is not below int(256 x level); that wraps, so from 10 on the same thresholds come again."""
    threshold = int(level * 256) % 256
    return _by_tables(planes, [np.where(threshold > LEVELS, LEVELS, 255 - LEVELS)] * 3)


def color(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Blend with the grey image."""
    factor = _factor(level)
    return planes if factor == 1 else planes_by().colour(planes, factor)


def contrast(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Blend with a grey that the size decides, not the image: its pixels / 256, at most 255 (196 for 224 px)."""
    return _from_even(planes, min(planes[0].size // 256, 255), _factor(level))


def brightness(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Blend with black."""
    return _from_even(planes, 0, _factor(level))


def sharpness(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Blend with the smoothed image; the border stays."""
    factor, by = _factor(level), planes_by()
    return planes if factor == 1 else by.blend(by.smooth(planes, False), planes, factor)


def shear_x(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Shift each row by a part of its number, either way."""
    return _moved(planes, 1, _either(level * SHEAR, draws), 0, 0, 1, 0)


def shear_y(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Shift each column by a part of its number, either way."""
    return _moved(planes, 1, 0, 0, _either(level * SHEAR, draws), 1, 0)


def translate_x(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Shift left or right by pixels, whatever the size."""
    return _moved(planes, 1, 0, _either(level * TRANSLATE_PX, draws), 0, 1, 0)


def translate_y(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Shift up or down by pixels, whatever the size."""
    return _moved(planes, 1, 0, 0, 0, 1, _either(level * TRANSLATE_PX, draws))


def cutout(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Fill a square of twice int(40 x level) pixels about any pixel."""
    half = int(level * CUTOUT_PX)
    y, x = (int(draw * side) for draw, side in zip(draws, planes.shape[1:], strict=True))
    filled = planes.copy()
    filled[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = FILL
    return filled


def solarize_add(planes: Bytes, level: float, draws: Sequence[float]) -> Bytes:
    """Add int(110 x level) to what is below 128."""
    table = np.where(LEVELS < 128, np.minimum(LEVELS + int(level * 110), 255), LEVELS)
    return _by_tables(planes, [table] * 3)


OPERATIONS: dict[str, Operation] = {  # in the order of distort_image_with_randaugment
    "autocontrast": autocontrast, "equalize": equalize, "invert": invert, "rotate": rotate, "posterize": posterize,
    "solarize": solarize, "color": color, "contrast": contrast, "brightness": brightness, "sharpness": sharpness,
    "shear_x": shear_x, "shear_y": shear_y, "translate_x": translate_x, "translate_y": translate_y, "cutout": cutout,
    "solarize_add": solarize_add,
}  # fmt: skip


_IN_ORDER = tuple(OPERATIONS.values())


def vary(planes: Bytes, settings: RandAugmentSettings, draws: Floats) -> Bytes:
    """Apply all layers; `draws` has three numbers in [0, 1) for each."""
    for choice, *own in draws.tolist():
        planes = _IN_ORDER[int(choice * len(_IN_ORDER))](planes, settings.magnitude / 10, own)
    return planes


def equalized(planes: Bytes) -> Bytes:
    """Give each plane all levels about equally often, as Pillow does; one of few pixels, or of one level, stays."""
    return _by_tables(planes, [_equalizing(counts) for counts in planes_by().histograms(planes)])


def _equalizing(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if not step:
        return LEVELS
    equal: npt.NDArray[np.int64] = np.minimum((np.cumsum(counts) - counts + step // 2) // step, 255)
    return equal


def _stretched(lowest: int, highest: int) -> npt.NDArray[Any]:
    if lowest >= highest:
        return LEVELS
    low, high = np.float32(lowest), np.float32(highest)
    scale = np.float32(255) / (high - low)
    stretched: npt.NDArray[Any] = np.clip(LEVELS.astype(np.float32) * scale + -low * scale, 0, 255)
    return stretched


def _from_even(planes: Bytes, grey: int, factor: float) -> Bytes:
    if factor == 1:
        return planes
    mixed = np.float32(grey) + np.float32(factor) * (LEVELS.astype(np.float32) - np.float32(grey))
    return _by_tables(planes, [np.clip(mixed, 0, 255)] * 3)


def _by_tables(planes: Bytes, tables: Sequence[npt.NDArray[Any]]) -> Bytes:
    changed = planes.copy()
    planes_by().by_tables(changed, np.array(tables).astype(np.uint8))
    return changed


def _moved(planes: Bytes, *matrix: float) -> Bytes:
    return planes_by().nearest(planes, np.array(matrix, dtype=np.float32), FILL)


def _factor(level: float) -> float:
    return level * 1.8 + 0.1  # _enhance_level_to_arg: 0.1 at magnitude 0, the image itself at 5


def _either(value: float, draws: Sequence[float]) -> float:
    return value if draws[0] < 0.5 else -value
