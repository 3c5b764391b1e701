"""RandAugment with the operations and ranges of torchvision.transforms.v2.RandAugment, to its pixels.

What depends on each level alone, and where pixels move to, is asked of torchvision itself once, by an image of all
levels, or of the numbers of all pixels. Magnitudes are not rounded to fp32 as theirs are, which is a level at most.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torchvision.transforms.v2.functional as v2
from torch import Tensor
from torchvision.transforms import InterpolationMode

from vitpipe.stages.images.config import FULL_STRENGTH, RandAugmentSettings
from vitpipe.stages.images.numpy_steps import Program, What
from vitpipe.stages.images.steps import Step, by_table, nearest

NEAREST = InterpolationMode.NEAREST  # torchvision's default for its automatic augmentations

Operation = Callable[[float, float, int, int], Step | None]
"""(strength in [0, 1], 1 or -1, height, width) -> what to do, if anything."""


def _levels(change: Callable[[Tensor, float, float], Tensor]) -> Operation:
    """What depends on a level alone."""

    def step(strength: float, sign: float, height: int, width: int) -> Step:
        image_CHW = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256).contiguous()
        return by_table(change(image_CHW, strength, sign)[0].numpy().tobytes())

    return step


def _moved(change: Callable[[Tensor, float, float], Tensor]) -> Operation:
    """What moves pixels; 0 comes from outside."""

    def step(strength: float, sign: float, height: int, width: int) -> Step:
        numbers_CHW = torch.arange(1, height * width + 1, dtype=torch.float32).reshape(1, height, width)
        return Step(What.GATHER, table=change(numbers_CHW, strength, sign)[0].to(torch.int32).numpy())

    return step


def _shear(image_CHW: Tensor, x: float = 0, y: float = 0) -> Tensor:
    slopes = [math.degrees(math.atan(slope)) for slope in (x, y)]
    sheared: Tensor = v2.affine_image(
        image_CHW, angle=0.0, translate=[0, 0], scale=1.0, shear=slopes, interpolation=NEAREST, center=[0, 0]
    )
    return sheared


def _shift(height: int, width: int, x: float = 0, y: float = 0) -> Step:
    return nearest(height, width, (1, 0, -int(x), 0, 1, -int(y)), 0)


def _by(what: What) -> Operation:
    return lambda strength, sign, height, width: Step(what, Program.TORCHVISION, (1 + 0.9 * strength * sign,))


OPERATIONS: dict[str, Operation] = {  # ranges of torchvision.transforms.v2.RandAugment
    "identity": lambda strength, sign, height, width: None,
    "shear_x": _moved(lambda image, strength, sign: _shear(image, x=0.3 * strength * sign)),
    "shear_y": _moved(lambda image, strength, sign: _shear(image, y=0.3 * strength * sign)),
    "translate_x": lambda strength, sign, height, width: _shift(height, width, x=150 / 331 * width * strength * sign),
    "translate_y": lambda strength, sign, height, width: _shift(height, width, y=150 / 331 * height * strength * sign),
    "rotate": _moved(lambda image, strength, sign: v2.rotate_image(image, 30 * strength * sign, interpolation=NEAREST)),
    "brightness": _levels(lambda image, strength, sign: v2.adjust_brightness_image(image, 1 + 0.9 * strength * sign)),
    "color": _by(What.COLOUR),
    "contrast": _by(What.CONTRAST),
    "sharpness": _by(What.SHARPNESS),
    "posterize": _levels(lambda image, strength, sign: v2.posterize_image(image, 8 - round(4 * strength))),
    "solarize": _levels(lambda image, strength, sign: v2.solarize_image(image, 255 * (1 - strength))),
    "autocontrast": lambda strength, sign, height, width: Step(What.AUTOCONTRAST, Program.TORCHVISION),
    "equalize": lambda strength, sign, height, width: Step(What.EQUALIZE),
}
_IN_ORDER = tuple(OPERATIONS)


def steps(settings: RandAugmentSettings, draws: Sequence[Sequence[float]], height: int, width: int) -> list[Step]:
    """Choose a step for each layer by two numbers in [0, 1)."""
    strength = settings.magnitude / FULL_STRENGTH["torchvision"]
    names = ((_IN_ORDER[int(choice * len(_IN_ORDER))], 1.0 if side < 0.5 else -1.0) for choice, side in draws)
    chosen = (step(name, strength, sign, height, width) for name, sign in names)
    return [one for one in chosen if one is not None]


@lru_cache(maxsize=64)
def step(name: str, strength: float, sign: float, height: int, width: int) -> Step | None:
    """Say what an operation does."""
    return OPERATIONS[name](strength, sign, height, width)
