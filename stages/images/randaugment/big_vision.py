"""RandAugment as big_vision has it (pp/archive/autoaugment.py, from TensorFlow's TPU models): the AugReg paper's.

Sixteen operations, none of them the identity, and full strength at magnitude 10. `tfa.image`'s nearest pixels, its
black alpha filled with 128. Thresholds and shifts wrap at 256, as there: their numbers become uint8.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.numpy_steps import LEVELS, What
from vitpipe.stages.images.steps import Step, by_table, nearest

FILL = 128
ROTATE_DEGREES, SHEAR, TRANSLATE_PX, CUTOUT_PX = 30.0, 0.3, 100.0, 40
"""At full strength (_rotate_level_to_arg and the lines below it; HParams of distort_image_with_randaugment)."""

Operation = Callable[[float, float, int, int], Step]
"""(magnitude / 10, 1 or -1, height, width) -> what to do."""


def autocontrast(level: float, sign: float, height: int, width: int) -> Step:
    """Stretch each plane to 0 .. 255."""
    return Step(What.AUTOCONTRAST)


def equalize(level: float, sign: float, height: int, width: int) -> Step:
    """Give each plane all levels about equally often."""
    return Step(What.EQUALIZE)


def invert(level: float, sign: float, height: int, width: int) -> Step:
    """Turn light to dark."""
    return by_table(bytes(range(255, -1, -1)))


def rotate(level: float, sign: float, height: int, width: int) -> Step:
    """Turn about the middle, either way."""
    angle = float(np.float32(level * ROTATE_DEGREES * sign) * np.float32(math.pi / 180))
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    down, right = np.float32(height - 1), np.float32(width - 1)
    x = (right - (cos * right - sin * down)) / np.float32(2)
    y = (down - (sin * right + cos * down)) / np.float32(2)
    return nearest(height, width, tuple(map(float, (cos, -sin, x, sin, cos, y))), FILL)


def posterize(level: float, sign: float, height: int, width: int) -> Step:
    """Keep the upper int(4 x level) bits; 1 for none, 8 for more than all of them but 1 again."""
    shift = min((8 - int(level * 4)) % 256, 7)  # TensorFlow shifts a byte by at most 7
    return by_table(bytes((value >> shift << shift) % 256 for value in range(256)))


def solarize(level: float, sign: float, height: int, width: int) -> Step:
    """Invert what is not below int(256 x level); that wraps, so from 10 on the same thresholds come again."""
    threshold = int(level * 256) % 256
    return by_table(bytes(value if value < threshold else 255 - value for value in range(256)))


def color(level: float, sign: float, height: int, width: int) -> Step:
    """Blend with the grey image."""
    return Step(What.COLOUR, numbers=(_factor(level),))


def contrast(level: float, sign: float, height: int, width: int) -> Step:
    """Blend with a grey that the size decides, not the image: its pixels / 256, at most 255 (196 for 224 px)."""
    return Step(What.EVEN, numbers=(min(height * width // 256, 255), _factor(level)))


def brightness(level: float, sign: float, height: int, width: int) -> Step:
    """Blend with black."""
    return Step(What.EVEN, numbers=(0, _factor(level)))


def sharpness(level: float, sign: float, height: int, width: int) -> Step:
    """Blend with the smoothed image; the border stays."""
    return Step(What.SHARPNESS, numbers=(_factor(level),))


def shear_x(level: float, sign: float, height: int, width: int) -> Step:
    """Shift each row by a part of its number, either way."""
    return nearest(height, width, (1, level * SHEAR * sign, 0, 0, 1, 0), FILL)


def shear_y(level: float, sign: float, height: int, width: int) -> Step:
    """Shift each column by a part of its number, either way."""
    return nearest(height, width, (1, 0, 0, level * SHEAR * sign, 1, 0), FILL)


def translate_x(level: float, sign: float, height: int, width: int) -> Step:
    """Shift left or right by pixels, whatever the size."""
    return nearest(height, width, (1, 0, level * TRANSLATE_PX * sign, 0, 1, 0), FILL)


def translate_y(level: float, sign: float, height: int, width: int) -> Step:
    """Shift up or down by pixels, whatever the size."""
    return nearest(height, width, (1, 0, 0, 0, 1, level * TRANSLATE_PX * sign), FILL)


def cutout(level: float, draws: Sequence[float], height: int, width: int) -> Step:
    """Fill a square of twice int(40 x level) pixels about any pixel."""
    half = int(level * CUTOUT_PX)
    y, x = int(draws[0] * height), int(draws[1] * width)
    edges = max(0, y - half), max(0, x - half), min(height, y + half), min(width, x + half)
    return Step(What.BOX, numbers=edges, fill=FILL)


def solarize_add(level: float, sign: float, height: int, width: int) -> Step:
    """Add int(110 x level) to what is below 128."""
    table = np.where(LEVELS < 128, np.minimum(LEVELS + int(level * 110), 255), LEVELS)
    return by_table(table.astype(np.uint8).tobytes())


SIGNED: dict[str, Operation] = {
    "autocontrast": autocontrast, "equalize": equalize, "invert": invert, "rotate": rotate, "posterize": posterize,
    "solarize": solarize, "color": color, "contrast": contrast, "brightness": brightness, "sharpness": sharpness,
    "shear_x": shear_x, "shear_y": shear_y, "translate_x": translate_x, "translate_y": translate_y,
    "solarize_add": solarize_add,
}  # fmt: skip
OPERATIONS = (*list(SIGNED)[:-1], "cutout", "solarize_add")
"""In the order of distort_image_with_randaugment."""


def step(name: str, level: float, draws: Sequence[float], height: int, width: int) -> Step:
    """Say what an operation does with two draws in [0, 1)."""
    if name == "cutout":
        return cutout(level, draws, height, width)
    return _signed(name, level, 1.0 if draws[0] < 0.5 else -1.0, height, width)


def steps(settings: RandAugmentSettings, draws: Sequence[Sequence[float]], height: int, width: int) -> list[Step]:
    """Choose a step for each layer by three numbers in [0, 1)."""
    chosen = ((OPERATIONS[int(choice * len(OPERATIONS))], own) for choice, *own in draws)
    return [step(name, settings.magnitude / 10, own, height, width) for name, own in chosen]


@lru_cache(maxsize=256)
def _signed(name: str, level: float, sign: float, height: int, width: int) -> Step:
    return SIGNED[name](level, sign, height, width)


def _factor(level: float) -> float:
    return level * 1.8 + 0.1  # _enhance_level_to_arg: 0.1 at magnitude 0, the image itself at 5
