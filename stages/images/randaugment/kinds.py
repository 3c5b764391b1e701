"""RandAugment by its kind: how many draws each layer takes, and what they choose. Draws decide, nothing else."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vitpipe.stages.images.config import RandAugmentSettings
from vitpipe.stages.images.keys import Floats
from vitpipe.stages.images.randaugment import big_vision, timm, torchvision
from vitpipe.stages.images.steps import Step


class Variation(NamedTuple):
    """One program's RandAugment."""

    draws: int
    """Numbers in [0, 1) for each layer."""
    steps: Callable[[RandAugmentSettings, Sequence[Sequence[float]], int, int], list[Step]]
    """Choose the steps of all layers for an image of a height and a width, given draws (layers, `draws`)."""


KINDS = {
    "torchvision": Variation(2, torchvision.steps),
    "big_vision": Variation(3, big_vision.steps),
    "timm": Variation(5, timm.steps),
}


def draws_for(settings: RandAugmentSettings) -> int:
    """How many numbers in [0, 1) an image takes."""
    return KINDS[settings.kind].draws * settings.layers


def steps_for(settings: RandAugmentSettings, draws_BD: Floats, height: int, width: int) -> list[list[Step]]:
    """Choose what is done to each image of that size by its `draws_for` numbers in [0, 1)."""
    kind = KINDS[settings.kind]
    layers = draws_BD.reshape(len(draws_BD), settings.layers, kind.draws).tolist()
    return [kind.steps(settings, draws, height, width) for draws in layers]
