"""What every proof of a written file has in common: the images, our own model's answers, and the comparison.

Shapes: B images, T tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitpipe.stages.convert.config import Dtype, Format
from vitpipe.stages.convert.layouts import links_of
from vitpipe.stages.convert.numbers import stored, widened
from vitpipe.stages.convert.tensors import Tensors
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.model import ViT

NUM_IMAGES = 4
DTYPES: Mapping[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = 1e-4
"""Largest difference of any output in fp32, over the output's largest absolute value where that is above 1. Measured
differences between equal models stay below 1e-5; another GELU, epsilon or order of q, k, v is above 1e-3."""

Outputs = Mapping[str, Tensor]
"""`logits`; `features`, which a head of zeros would hide; and `encoded`, the encoder on quiet tokens."""


class Absent(Exception):
    """A consumer's library is not installed; says which."""


@dataclass(frozen=True)
class Given:
    """What a consumer is given: a written folder, and what to feed it."""

    settings: ModelSettings
    folder: Path
    dtype: str
    images: Tensor
    """(B, 3, H, W), uint8."""

    @property
    def scaled(self) -> Tensor:
        """The images in [-1, 1]."""
        return self.images / 127.5 - 1

    def tokens(self) -> Tensor:
        """Tokens (1, T, D) of variance 1e-6, where another LayerNorm epsilon shows: trained ones are too large for it.
        ValueError for a ResNet."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(1, self.settings.tokens, self.settings.sizes.width, generator=generator) * 1e-3


def parity_images(image_px: int) -> Tensor:
    """The images of every proof, uint8 (B, 3, H, W): noise over a slope, so that no patch is like another."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 128, (NUM_IMAGES, 3, image_px, image_px), generator=generator)
    slope = torch.arange(image_px) * 127 // max(1, image_px - 1)
    return (noise + slope[:, None]).to(torch.uint8)


def load_model(source: Tensors, rounding: torch.dtype = torch.float32) -> Model:
    """Our model with the source's tensors, rounded to a type but held in fp32."""
    with torch.device("meta"):
        model = build_model(source.settings)
    state = {name: torch.from_numpy(source.read(name)).to(rounding).float() for name in source.shapes}
    model.load_state_dict(state, assign=True)
    return model.eval()


def load_rounded(name: Format, source: Tensors, dtype: Dtype) -> Model:
    """Our model with its numbers rounded as the format's are: what it holds in another form is rounded in that form."""
    model = load_model(source, DTYPES[dtype])
    if name in ("native", "onnx"):
        return model
    for link in links_of(name, source.settings):
        if not link.exact and link.to_native is not None:
            foreign = link.to_foreign(*(source.read(each) for each in link.native))
            back = link.to_native(*(widened(stored(array, dtype)) for array in foreign))
            state = {each: torch.from_numpy(array) for each, array in zip(link.native, back, strict=True)}
            model.load_state_dict(state, strict=False, assign=True)
    if source.settings.position == "sincos2d":  # computed here, a table of numbers there
        table = model.get_buffer("pos_table")
        table.copy_(table.to(DTYPES[dtype]).float())
    return model


def own_outputs(model: Model, given: Given) -> Outputs:
    """Those of our own model; a ResNet has no encoder to feed tokens."""
    features_BR = model.features(given.images)
    seen = {"logits": model.head(features_BR), "features": features_BR}
    return seen | ({"encoded": model.encode(given.tokens())} if isinstance(model, ViT) else {})


def compare(ours: Outputs, rounded: Outputs, theirs: Outputs) -> dict[str, Any]:
    """The figures of a proof, from our model, ours with weights rounded as written, and the consumer's.

    `error` is measured against the rounded one: rounding was asked for, any other difference was not. It is over the
    output's largest absolute value where that is above 1.
    """
    errors = [_largest(rounded[name] - theirs[name]) / max(1.0, _largest(rounded[name])) for name in theirs]
    return {
        "max_abs_difference": _largest(ours["logits"] - theirs["logits"]),
        "error": max(errors, key=lambda error: (error != error, error)),  # one that is not a number is the worst
        "tolerance": TOLERANCE,
        "images": len(ours["logits"]),
        "compared": list(theirs),
    }


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())
