"""RandAugment by its kind: how many draws each layer takes, and who applies them. Draws decide, nothing else."""

from collections.abc import Callable
from typing import NamedTuple

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.extension import Bytes
from vitpipe.stages.images.keys import Floats
from vitpipe.stages.images.randaugment import big_vision, timm, torchvision


class Variation(NamedTuple):
    """One program's RandAugment."""

    draws: int
    """Numbers in [0, 1) for each layer."""
    vary: Callable[[Bytes, RandAugmentSettings, Floats], Bytes]
    """Apply all layers to uint8 planes (3, H, W), given draws (layers, `draws`); the planes are not written to."""


KINDS = {
    "torchvision": Variation(2, torchvision.vary),
    "big_vision": Variation(3, big_vision.vary),
    "timm": Variation(5, timm.vary),
}


def draws_for(settings: RandAugmentSettings) -> int:
    """How many numbers in [0, 1) an image takes."""
    return KINDS[settings.kind].draws * settings.layers


def rand_augment(planes: Bytes, settings: RandAugmentSettings, draws: Floats) -> Bytes:
    """Vary contiguous uint8 planes (3, H, W) by `draws_for` numbers in [0, 1)."""
    kind = KINDS[settings.kind]
    return kind.vary(planes, settings, draws.reshape(settings.layers, kind.draws))
