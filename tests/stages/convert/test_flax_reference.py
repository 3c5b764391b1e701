"""Google's files in a Flax model of the same structure: the function that their authors' code computes from them.

The model is written here from the structure of vision_transformer's and big_vision's, in Flax's own layers, so that
their defaults (tanh GELU, LayerNorm epsilon, heads in kernels) are Flax's and not ours.
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import unflatten_dict
from tiny_vit import random_arrays, random_images, random_state, tiny

from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.containers.npz_file import NpzFile
from vitpipe.stages.convert.formats.common import NPZ, format_of
from vitpipe.stages.convert.formats.flax import Naming
from vitpipe.stages.convert.formats.google import ORIGINAL
from vitpipe.stages.convert.formats.google_big_vision import BIG_VISION
from vitpipe.stages.convert.tensors import Tensors
from vitpipe.stages.convert.write import layout
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.build import build_model


class Mlp(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        y = nn.gelu(nn.Dense(self.hidden, name="Dense_0")(x_BTD))
        return nn.Dense(x_BTD.shape[-1], name="Dense_1")(y)


class Block(nn.Module):
    settings: ModelSettings
    naming: Naming

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        y = nn.LayerNorm(name="LayerNorm_0")(x_BTD)
        x_BTD = x_BTD + nn.MultiHeadDotProductAttention(self.settings.sizes.heads, name=self.naming.attention)(y, y)
        y = nn.LayerNorm(name=self.naming.norm2)(x_BTD)
        return x_BTD + Mlp(self.settings.sizes.mlp, name=self.naming.mlp)(y)


class Encoder(nn.Module):
    settings: ModelSettings
    naming: Naming

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        if self.naming == ORIGINAL:
            x_BTD = Positions(name="posembed_input")(x_BTD)
        for layer in range(self.settings.sizes.layers):
            x_BTD = Block(self.settings, self.naming, name=f"encoderblock_{layer}")(x_BTD)
        return nn.LayerNorm(name="encoder_norm")(x_BTD)


class Positions(nn.Module):
    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return x_BTD + self.param("pos_embedding", nn.initializers.zeros, (1, *x_BTD.shape[1:]))


class MapHead(nn.Module):
    settings: ModelSettings

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        probe = self.param("probe", nn.initializers.zeros, (1, 1, x_BTD.shape[-1]))
        attention = nn.MultiHeadDotProductAttention(self.settings.sizes.heads, name="MultiHeadDotProductAttention_0")
        x = attention(jnp.tile(probe, (len(x_BTD), 1, 1)), x_BTD)
        return (x + Mlp(self.settings.sizes.mlp, name="MlpBlock_0")(nn.LayerNorm(name="LayerNorm_0")(x)))[:, 0]


class Reference(nn.Module):
    settings: ModelSettings
    naming: Naming

    @nn.compact
    def __call__(self, images_BHWC: jax.Array) -> jax.Array:
        settings, sizes = self.settings, self.settings.sizes
        patch = (sizes.patch_px, sizes.patch_px)
        x = nn.Conv(sizes.width, patch, strides=patch, padding="VALID", name="embedding")(images_BHWC)
        x = x.reshape(len(x), -1, sizes.width)
        if self.naming == BIG_VISION and settings.position == "sincos2d":
            x = x + sincos2d(settings.grid, sizes.width)
        elif self.naming == BIG_VISION:  # before the class token
            x = x + self.param("pos_embedding", nn.initializers.zeros, (1, *x.shape[1:]))
        if settings.pool == "cls":
            token = self.param("cls", nn.initializers.zeros, (1, 1, sizes.width))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        x = Encoder(settings, self.naming, name="Transformer")(x)
        if settings.pool == "map":
            x = MapHead(settings, name="MAPHead_0")(x)
        else:
            x = x[:, 0] if settings.pool == "cls" else x.mean(axis=1)
        if settings.representation != "none":
            x = jnp.tanh(nn.Dense(settings.feature_width, name="pre_logits")(x))
        return nn.Dense(settings.classes, name="head")(x)


def sincos2d(grid: int, width: int) -> jax.Array:
    """The formula of MoCo v3, which big_vision computes at every call and keeps in no file (posemb_sincos_2d)."""
    y, x = jnp.mgrid[:grid, :grid]
    omega = 1 / 10_000 ** (jnp.arange(width // 4) / (width // 4 - 1))
    y, x = (jnp.einsum("m,d->md", axis.flatten(), omega) for axis in (y, x))
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=1)[None]


def google_file(name: Format, settings: ModelSettings, path: Path) -> Path:
    state = random_arrays(settings)
    tensors = Tensors(settings, {key: value.shape for key, value in state.items()}, state.__getitem__)
    targets = layout(format_of(name), tensors)
    with NpzFile(path, [(target.made.name, target.shape) for target in targets], "fp32") as file:
        for target in targets:
            file.add(target.made.name, target.made.make(*(state[source] for source in target.made.sources)))
        file.digest()
    return path


@pytest.mark.parametrize(("format", "naming", "changes"), [
    ("google", ORIGINAL, {"variant": "B/16"}),
    ("google", ORIGINAL, {"representation": 7}),
    ("google", ORIGINAL, {"pool": "gap"}),
    ("google_big_vision", BIG_VISION, {"representation": "width"}),
    ("google_big_vision", BIG_VISION, {"pool": "map"}),
    ("google_big_vision", BIG_VISION, {"pool": "gap", "position": "sincos2d"}),
    ("google_big_vision", BIG_VISION, {"position": "sincos2d"}),
])  # fmt: skip
def test_flax_computes_the_same_from_the_file(
    tmp_path: Path, format: Format, naming: Naming, changes: dict[str, Any]
) -> None:
    settings = tiny(gelu="tanh", **changes)
    state = random_state(settings)
    with np.load(google_file(format, settings, tmp_path / NPZ)) as arrays:
        tree = unflatten_dict({tuple(name.split("/")): arrays[name] for name in arrays.files})
    images = random_images(settings)
    pixels_BHWC = (images.permute(0, 2, 3, 1) / 127.5 - 1).numpy()
    assert ("pos_embedding" in tree.get("params", {})) == (format != "google" and "position" not in changes)
    theirs = np.asarray(Reference(settings, naming).apply({"params": tree.get("params", tree)}, pixels_BHWC))
    ours, other = (logits(settings.model_copy(update={"gelu": gelu}), state, images) for gelu in ("tanh", "erf"))
    assert np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max() < np.abs(theirs - other).max()


def logits(settings: ModelSettings, state: dict[str, torch.Tensor], images: torch.Tensor) -> np.ndarray:
    with torch.device("meta"):
        model = build_model(settings)
    model.load_state_dict(state, assign=True)
    with torch.inference_mode():
        return model.eval()(images).numpy()
