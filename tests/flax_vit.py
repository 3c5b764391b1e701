"""vision_transformer's model in flax.linen, for tests alone: layers, names and defaults are those of the authors' code.

Reads weights in Google's layout. `python -m flax_vit OUT.npz SETTINGS...` writes the logits of each model: in a process
of its own, because jax forbids the forks of others.
"""

import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from same_weights import random_everywhere
from torch import Tensor

from vitpipe.stages.convert.formats.google import google_links
from vitpipe.stages.convert.links import outward
from vitpipe.stages.model_settings import ModelSettings


class StdConv(nn.Conv):
    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        value = super().param(name, *args, **kwargs)
        if name == "kernel":
            axes = (0, 1, 2)
            value = (value - value.mean(axes)) / (value.std(axes) + 1e-5)
        return value


class Unit(nn.Module):
    narrow: int
    stride: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        def conv(size: int, out: int, name: str, stride: int = 1) -> Any:
            return StdConv(out, (size, size), (stride, stride), use_bias=False, name=name)

        around = x
        if x.shape[-1] != 4 * self.narrow or self.stride > 1:
            around = nn.GroupNorm(name="gn_proj")(conv(1, 4 * self.narrow, "conv_proj", self.stride)(x))
        y = nn.relu(nn.GroupNorm(name="gn1")(conv(1, self.narrow, "conv1")(x)))
        y = nn.relu(nn.GroupNorm(name="gn2")(conv(3, self.narrow, "conv2", self.stride)(y)))
        return nn.relu(around + nn.GroupNorm(name="gn3")(conv(1, 4 * self.narrow, "conv3")(y)))


class Stage(nn.Module):
    narrow: int
    units: int
    stride: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for place in range(self.units):
            x = Unit(self.narrow, 1 if place else self.stride, name=f"unit{place + 1}")(x)
        return x


class Mlp(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.gelu(nn.Dense(self.hidden, name="Dense_0")(x))
        return nn.Dense(x.shape[-1], name="Dense_1")(y)


class Block(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.LayerNorm(name="LayerNorm_0")(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, name="MultiHeadDotProductAttention_1")(y, y)
        return x + Mlp(self.hidden, name="MlpBlock_3")(nn.LayerNorm(name="LayerNorm_2")(x))


class Positions(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))


class Encoder(nn.Module):
    layers: int
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = Positions(name="posembed_input")(x)
        for layer in range(self.layers):
            x = Block(self.heads, self.hidden, name=f"encoderblock_{layer}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class FlaxViT(nn.Module):
    """Images (B, H, W, 3) to logits (B, K)."""

    settings: ModelSettings

    @nn.compact
    def __call__(self, x: Any) -> Any:
        settings, sizes = self.settings, self.settings.sizes
        if settings.stem is not None:
            x = StdConv(64, (7, 7), (2, 2), use_bias=False, name="conv_root")(x)
            x = nn.relu(nn.GroupNorm(name="gn_root")(x))
            x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
            for number, units in enumerate(settings.stem):
                x = Stage(64 * 2**number, units, 2 if number else 1, name=f"block{number + 1}")(x)
        patch = (sizes.patch_px, sizes.patch_px)
        x = nn.Conv(sizes.width, patch, patch, padding="VALID", name="embedding")(x)
        x = x.reshape(x.shape[0], -1, sizes.width)
        token = self.param("cls", nn.initializers.zeros, (1, 1, sizes.width))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = Encoder(sizes.layers, sizes.heads, sizes.mlp, name="Transformer")(x)[:, 0]
        if settings.representation != "none":
            x = jnp.tanh(nn.Dense(settings.feature_width, name="pre_logits")(x))
        return nn.Dense(settings.classes, name="head")(x)


def logits(settings: ModelSettings) -> np.ndarray:
    """Of our random weights, brought into Google's layout, in Flax."""
    state, tree = random_everywhere(settings), {}
    for made in outward(google_links(settings)):
        *folders, leaf = made.name.split("/")
        place: dict[str, Any] = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = jnp.asarray(made.make(*(state[name].numpy() for name in made.sources)))
    images = jnp.asarray(random_images(settings.image_px).permute(0, 2, 3, 1).numpy())
    return np.asarray(jax.jit(FlaxViT(settings).apply)({"params": tree}, images))


def random_images(image_px: int) -> Tensor:
    """Two in [-1, 1], (B, 3, H, W)."""
    return torch.rand(2, 3, image_px, image_px, generator=torch.Generator().manual_seed(5)) * 2 - 1


if __name__ == "__main__":
    models = [ModelSettings.model_validate_json(text) for text in sys.argv[2:]]
    np.savez(sys.argv[1], **{str(number): logits(model) for number, model in enumerate(models)})
