"""RandAugment with the operations and ranges of torchvision.transforms.v2.RandAugment, to its pixels.

By torchvision itself, but for what is quicker on bytes and the same. Magnitudes are not rounded to fp32 as theirs are,
which is a level at most.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torchvision.transforms.v2.functional as v2
from torch import Tensor
from torchvision.transforms import InterpolationMode

from vitpipe.stages.images.config import FULL_STRENGTH, RandAugmentSettings
from vitpipe.stages.images.extension import Bytes
from vitpipe.stages.images.keys import Floats
from vitpipe.stages.images.planes import planes_by
from vitpipe.stages.images.randaugment.big_vision import equalized

NEAREST = InterpolationMode.NEAREST  # torchvision's default for its automatic augmentations

Operation = Callable[[Bytes, float, float], Bytes]
"""(planes, strength in [0, 1], sign) -> planes."""


def _by_torch(change: Callable[[Tensor, float, float], Tensor]) -> Operation:
    def changed(planes: Bytes, strength: float, sign: float) -> Bytes:
        pixels: Bytes = change(torch.from_numpy(planes), strength, sign).numpy()
        return pixels

    return changed


def _shear(image_CHW: Tensor, x: float = 0, y: float = 0) -> Tensor:
    slopes = [math.degrees(math.atan(slope)) for slope in (x, y)]
    sheared: Tensor = v2.affine_image(
        image_CHW, angle=0.0, translate=[0, 0], scale=1.0, shear=slopes, interpolation=NEAREST, center=[0, 0]
    )
    return sheared


def _shift(planes: Bytes, x: float = 0, y: float = 0) -> Bytes:
    right, down = int(x), int(y)
    matrix = np.array([1, 0, -right, 0, 1, -down], dtype=np.float32)
    return planes_by().nearest(planes, matrix, 0)


def _sharpen(planes: Bytes, factor: float) -> Bytes:
    """Go from the smoothed image to this one, or past it; the border stays. Thirteenths are never a half, so that
    rounding them is the same whoever adds up."""
    smooth, sharp = torch.from_numpy(planes_by().smooth(planes, True)), torch.from_numpy(planes).float()
    mixed: Bytes = sharp.add_(smooth - sharp, alpha=1.0 - factor).clamp_(0, 255).to(torch.uint8).numpy()
    return mixed


OPERATIONS: dict[str, Operation] = {  # ranges of torchvision.transforms.v2.RandAugment
    "identity": lambda planes, strength, sign: planes,
    "shear_x": _by_torch(lambda image, strength, sign: _shear(image, x=0.3 * strength * sign)),
    "shear_y": _by_torch(lambda image, strength, sign: _shear(image, y=0.3 * strength * sign)),
    "translate_x": lambda planes, strength, sign: _shift(planes, x=150 / 331 * planes.shape[-1] * strength * sign),
    "translate_y": lambda planes, strength, sign: _shift(planes, y=150 / 331 * planes.shape[-2] * strength * sign),
    "rotate": _by_torch(
        lambda image, strength, sign: v2.rotate_image(image, 30 * strength * sign, interpolation=NEAREST)
    ),
    "brightness": _by_torch(lambda image, strength, sign: v2.adjust_brightness_image(image, 1 + 0.9 * strength * sign)),
    "color": _by_torch(lambda image, strength, sign: v2.adjust_saturation_image(image, 1 + 0.9 * strength * sign)),
    "contrast": _by_torch(lambda image, strength, sign: v2.adjust_contrast_image(image, 1 + 0.9 * strength * sign)),
    "sharpness": lambda planes, strength, sign: _sharpen(planes, 1 + 0.9 * strength * sign),
    "posterize": _by_torch(lambda image, strength, sign: v2.posterize_image(image, 8 - round(4 * strength))),
    "solarize": _by_torch(lambda image, strength, sign: v2.solarize_image(image, 255 * (1 - strength))),
    "autocontrast": _by_torch(lambda image, strength, sign: v2.autocontrast_image(image)),
    "equalize": lambda planes, strength, sign: equalized(planes),
}
_IN_ORDER = tuple(OPERATIONS.values())


def vary(planes: Bytes, settings: RandAugmentSettings, draws: Floats) -> Bytes:
    """Apply all layers; `draws` has two numbers in [0, 1) for each."""
    for choice, side in draws.tolist():
        operation = _IN_ORDER[int(choice * len(_IN_ORDER))]
        planes = operation(planes, settings.magnitude / FULL_STRENGTH["torchvision"], 1.0 if side < 0.5 else -1.0)
    return planes
