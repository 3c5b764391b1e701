"""Small architectures of every kind, and weights far from their initial values."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.init import initial_value
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.shapes import parameter_shapes

TINY = Sizes(layers=2, width=32, mlp=48, heads=4, patch_px=8)
KINDS = [
    {"pool": pool, "position": position, "representation": representation}
    for pool in ("cls", "gap", "map")
    for position, representation in (
        ("learned1d", "none"), ("learned2d", 7), ("relative", "width"), ("sincos2d", "none"), ("none", "none"),
    )
]  # fmt: skip


def tiny(**changes: object) -> ModelSettings:
    return ModelSettings.model_validate({"variant": TINY, "image_px": 32, "classes": 5, **changes})


def random_state(settings: ModelSettings, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: initial_value(name, shape, seed) + 0.05 * torch.randn(shape, generator=generator)
        for name, shape in parameter_shapes(settings).items()
    }


def random_arrays(settings: ModelSettings, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The same, as conversions see it."""
    return {name: tensor.numpy() for name, tensor in random_state(settings, seed).items()}


def random_model(settings: ModelSettings, seed: int = 0) -> ViT:
    model = ViT(settings)
    model.load_state_dict(random_state(settings, seed))
    return model


def random_images(settings: ModelSettings, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    shape = (count, 3, settings.image_px, settings.image_px)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
