"""RandAugment as timm has it (timm/data/auto_augment.py), to the pixels of the Pillow that timm calls.

Fifteen operations, each layer skipped half of the time; full strength at magnitude 10, where it stops. `increasing`
takes the other set, in which a larger magnitude always changes more.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.numpy_steps import Program, What
from vitpipe.stages.images.steps import Step, by_table

FILL = 128
ROTATE_DEGREES, SHEAR, TRANSLATE_SHARE = 30.0, 0.3, 0.45
"""At full strength."""
SKIPPED = 0.5
"""Probability that a layer does nothing."""
FILTERS = (What.BILINEAR, What.BICUBIC)
"""Of moved pixels, drawn each time."""


class Drawn(NamedTuple):
    """What is drawn for an operation, and the size of the image."""

    sign: float
    """1 or -1."""
    resample: What
    height: int
    width: int


Operation = Callable[[float, Drawn], Step]
"""(magnitude / 10, what is drawn) -> what to do."""


def _moved(drawn: Drawn, *matrix: float) -> Step:
    return Step(drawn.resample, numbers=matrix, fill=FILL)


def _rotated(level: float, drawn: Drawn) -> Step:
    """As Pillow's Image.rotate has its matrix."""
    angle = -math.radians(level * ROTATE_DEGREES * drawn.sign % 360.0)
    cos, sin, x, y = round(math.cos(angle), 15), round(math.sin(angle), 15), drawn.width / 2, drawn.height / 2
    return _moved(drawn, cos, sin, cos * -x + sin * -y + 0.0 + x, -sin, cos, -sin * -x + cos * -y + 0.0 + y)


def _posterized(bits: int) -> Step:
    # 0 bits are black, as Pillow had it before its version 13 refused them, and timm with it
    return by_table(bytes(value >> (8 - bits) << (8 - bits) for value in range(256)))


def _solarized(threshold: int) -> Step:
    return by_table(bytes(value if value < threshold else 255 - value for value in range(256)))


def _added(level: float) -> Step:
    more = min(128, int(level * 110))
    return by_table(bytes(min(255, value + more) if value < 128 else value for value in range(256)))


def _threshold(level: float) -> int:
    return min(256, int(level * 256))


def _factor(level: float, drawn: Drawn) -> float:
    return level * 1.8 + 0.1


def _factor_increasing(level: float, drawn: Drawn) -> float:
    return max(0.1, 1.0 + level * 0.9 * drawn.sign)


_SAME: dict[str, Operation] = {
    "autocontrast": lambda level, drawn: Step(What.AUTOCONTRAST, Program.PILLOW),
    "equalize": lambda level, drawn: Step(What.EQUALIZE),
    "invert": lambda level, drawn: by_table(bytes(range(255, -1, -1))),
    "rotate": _rotated,
    "solarize_add": lambda level, drawn: _added(level),
    "shear_x": lambda level, drawn: _moved(drawn, 1, level * SHEAR * drawn.sign, 0, 0, 1, 0),
    "shear_y": lambda level, drawn: _moved(drawn, 1, 0, 0, level * SHEAR * drawn.sign, 1, 0),
    "translate_x": lambda level, drawn: _moved(
        drawn, 1, 0, level * TRANSLATE_SHARE * drawn.sign * drawn.width, 0, 1, 0
    ),
    "translate_y": lambda level, drawn: _moved(
        drawn, 1, 0, 0, 0, 1, level * TRANSLATE_SHARE * drawn.sign * drawn.height
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
        "posterize": lambda level, drawn: _posterized(min(8, bits(level))),
        "solarize": lambda level, drawn: _solarized(threshold(level)),
        "color": lambda level, drawn: Step(What.COLOUR, Program.PILLOW, (factor(level, drawn),)),
        "contrast": lambda level, drawn: Step(What.CONTRAST, Program.PILLOW, (factor(level, drawn),)),
        "brightness": lambda level, drawn: Step(What.EVEN, numbers=(0, factor(level, drawn))),
        "sharpness": lambda level, drawn: Step(What.SHARPNESS, Program.PILLOW, (factor(level, drawn),)),
    }
    return {name: own[name] for name in _ORDER}


OPERATIONS = _in_order(_factor, lambda level: int(level * 4), _threshold)
"""_RAND_TRANSFORMS: `rand-mM-nN`."""
INCREASING = _in_order(_factor_increasing, lambda level: 4 - int(level * 4), lambda level: 256 - _threshold(level))
"""_RAND_INCREASING_TRANSFORMS: `rand-mM-nN-inc1`."""


def steps(settings: RandAugmentSettings, draws: Sequence[Sequence[float]], height: int, width: int) -> list[Step]:
    """Choose a step for each layer that is not skipped, by five numbers in [0, 1)."""
    operations = tuple((INCREASING if settings.increasing else OPERATIONS).values())
    chosen = []
    for choice, skip, side, filtered, noise in draws:
        if skip >= SKIPPED:
            drawn = Drawn(1.0 if side < 0.5 else -1.0, FILTERS[int(filtered * len(FILTERS))], height, width)
            chosen.append(operations[int(choice * len(operations))](magnitude(settings, noise) / 10, drawn))
    return chosen


def magnitude(settings: RandAugmentSettings, noise: float) -> float:
    """The magnitude of one layer: normally distributed about the asked one, within 0 to 10."""
    return float(np.clip(settings.magnitude + settings.magnitude_std * ndtri(max(noise, 2.0**-54)), 0, 10))
