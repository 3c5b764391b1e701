"""RandAugment (Cubuk et al. 2019) with torchvision's operations and ranges, driven by our own draws."""

import math
from collections.abc import Callable

import torch
import torchvision.transforms.v2.functional as v2
from torch import Tensor
from torchvision.transforms import InterpolationMode

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.keys import Floats

DRAWS_PER_LAYER = 2
MOST = 30.0
"""Magnitude at full strength."""
NEAREST = InterpolationMode.NEAREST  # torchvision's default for its automatic augmentations

Operation = Callable[[Tensor, float, float], Tensor]
"""(image_CHW uint8, strength in [0, 1], sign) -> image_CHW."""


def _shear(image_CHW: Tensor, x: float = 0, y: float = 0) -> Tensor:
    slopes = [math.degrees(math.atan(slope)) for slope in (x, y)]
    sheared: Tensor = v2.affine_image(
        image_CHW, angle=0.0, translate=[0, 0], scale=1.0, shear=slopes, interpolation=NEAREST, center=[0, 0]
    )
    return sheared


def _shift(image_CHW: Tensor, x: float = 0, y: float = 0) -> Tensor:
    moved: Tensor = v2.affine_image(
        image_CHW, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0], interpolation=NEAREST
    )
    return moved


OPERATIONS: dict[str, Operation] = {  # ranges of torchvision.transforms.v2.RandAugment
    "identity": lambda image, strength, sign: image,
    "shear_x": lambda image, strength, sign: _shear(image, x=0.3 * strength * sign),
    "shear_y": lambda image, strength, sign: _shear(image, y=0.3 * strength * sign),
    "translate_x": lambda image, strength, sign: _shift(image, x=150 / 331 * image.shape[-1] * strength * sign),
    "translate_y": lambda image, strength, sign: _shift(image, y=150 / 331 * image.shape[-2] * strength * sign),
    "rotate": lambda image, strength, sign: v2.rotate_image(image, 30 * strength * sign, interpolation=NEAREST),
    "brightness": lambda image, strength, sign: v2.adjust_brightness_image(image, 1 + 0.9 * strength * sign),
    "color": lambda image, strength, sign: v2.adjust_saturation_image(image, 1 + 0.9 * strength * sign),
    "contrast": lambda image, strength, sign: v2.adjust_contrast_image(image, 1 + 0.9 * strength * sign),
    "sharpness": lambda image, strength, sign: v2.adjust_sharpness_image(image, 1 + 0.9 * strength * sign),
    "posterize": lambda image, strength, sign: v2.posterize_image(image, 8 - round(4 * strength)),
    "solarize": lambda image, strength, sign: v2.solarize_image(image, 255 * (1 - strength)),
    "autocontrast": lambda image, strength, sign: v2.autocontrast_image(image),
    "equalize": lambda image, strength, sign: v2.equalize_image(image),
}
_NAMES = tuple(OPERATIONS)


def rand_augment(image_CHW: Tensor, settings: RandAugmentSettings, draws: Floats) -> Tensor:
    """Apply `layers` operations to a uint8 image; `draws` has two numbers in [0, 1) for each operation."""
    for choice, side in draws.reshape(settings.layers, DRAWS_PER_LAYER):
        operation = OPERATIONS[_NAMES[int(choice * len(_NAMES))]]
        image_CHW = operation(image_CHW, settings.magnitude / MOST, 1.0 if side < 0.5 else -1.0)
    return image_CHW.to(torch.uint8)
