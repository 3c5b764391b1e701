"""RandAugment as timm has it (timm/data/auto_augment.py): Pillow's operations, as timm itself calls them.

Fifteen operations, each layer skipped half of the time; full strength at magnitude 10, where it stops. `increasing`
takes the other set, in which a larger magnitude always changes more.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy.special import ndtri

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.extension import Bytes
from vitpipe.stages.images.keys import Floats

FILL = (128, 128, 128)
ROTATE_DEGREES, SHEAR, TRANSLATE_SHARE = 30.0, 0.3, 0.45
"""At full strength."""
SKIPPED = 0.5
"""Probability that a layer does nothing."""
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""Of moved pixels, drawn each time."""


class Drawn(NamedTuple):
    """What is drawn for an operation."""

    sign: float
    """1 or -1."""
    resample: Image.Resampling


Operation = Callable[[Image.Image, float, Drawn], Image.Image]
"""(image, magnitude / 10, what is drawn) -> image."""


def _moved(image: Image.Image, drawn: Drawn, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, drawn.resample, fillcolor=FILL)


def _posterized(image: Image.Image, bits: int) -> Image.Image:
    # 0 bits are black, as Pillow had it before its version 13 refused them, and timm with it
    return image if bits >= 8 else image.point([value >> (8 - bits) << (8 - bits) for value in range(256)] * 3)


def _added(image: Image.Image, level: float) -> Image.Image:
    more = min(128, int(level * 110))
    return image.point([min(255, value + more) if value < 128 else value for value in range(256)] * 3)


def _threshold(level: float) -> int:
    return min(256, int(level * 256))


def _factor(level: float, drawn: Drawn) -> float:
    return level * 1.8 + 0.1


def _factor_increasing(level: float, drawn: Drawn) -> float:
    return max(0.1, 1.0 + level * 0.9 * drawn.sign)


_SAME: dict[str, Operation] = {
    "autocontrast": lambda image, level, drawn: ImageOps.autocontrast(image),
    "equalize": lambda image, level, drawn: ImageOps.equalize(image),
    "invert": lambda image, level, drawn: ImageOps.invert(image),
    "rotate": lambda image, level, drawn: image.rotate(
        level * ROTATE_DEGREES * drawn.sign, drawn.resample, fillcolor=FILL
    ),
    "solarize_add": lambda image, level, drawn: _added(image, level),
    "shear_x": lambda image, level, drawn: _moved(image, drawn, 1, level * SHEAR * drawn.sign, 0, 0, 1, 0),
    "shear_y": lambda image, level, drawn: _moved(image, drawn, 1, 0, 0, level * SHEAR * drawn.sign, 1, 0),
    "translate_x": lambda image, level, drawn: _moved(
        image, drawn, 1, 0, level * TRANSLATE_SHARE * drawn.sign * image.width, 0, 1, 0
    ),
    "translate_y": lambda image, level, drawn: _moved(
        image, drawn, 1, 0, 0, 0, 1, level * TRANSLATE_SHARE * drawn.sign * image.height
    ),
}
_ORDER = (
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color", "contrast",
    "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip


def _in_order(
    factor: Callable[[float, Drawn], float], bits: Callable[[float], int], threshold: Callable[[float], int]
) -> dict[str, Operation]:
    own: dict[str, Operation] = {
        **_SAME,
        "posterize": lambda image, level, drawn: _posterized(image, bits(level)),
        "solarize": lambda image, level, drawn: ImageOps.solarize(image, threshold(level)),
        "color": lambda image, level, drawn: ImageEnhance.Color(image).enhance(factor(level, drawn)),
        "contrast": lambda image, level, drawn: ImageEnhance.Contrast(image).enhance(factor(level, drawn)),
        "brightness": lambda image, level, drawn: ImageEnhance.Brightness(image).enhance(factor(level, drawn)),
        "sharpness": lambda image, level, drawn: ImageEnhance.Sharpness(image).enhance(factor(level, drawn)),
    }
    return {name: own[name] for name in _ORDER}


OPERATIONS = _in_order(_factor, lambda level: int(level * 4), _threshold)
"""_RAND_TRANSFORMS: `rand-mM-nN`."""
INCREASING = _in_order(_factor_increasing, lambda level: 4 - int(level * 4), lambda level: 256 - _threshold(level))
"""_RAND_INCREASING_TRANSFORMS: `rand-mM-nN-inc1`."""


def vary(planes: Bytes, settings: RandAugmentSettings, draws: Floats) -> Bytes:
    """Apply all layers; `draws` has five numbers in [0, 1) for each."""
    operations = tuple((INCREASING if settings.increasing else OPERATIONS).values())
    image = Image.fromarray(planes.transpose(1, 2, 0))
    for choice, skip, side, filtered, noise in draws.tolist():
        if skip >= SKIPPED:
            drawn = Drawn(1.0 if side < 0.5 else -1.0, FILTERS[int(filtered * len(FILTERS))])
            image = operations[int(choice * len(operations))](image, magnitude(settings, noise) / 10, drawn)
    return np.asarray(image).transpose(2, 0, 1)


def magnitude(settings: RandAugmentSettings, noise: float) -> float:
    """The magnitude of one layer: normally distributed about the asked one, within 0 to 10."""
    return float(np.clip(settings.magnitude + settings.magnitude_std * ndtri(max(noise, 2.0**-54)), 0, 10))
