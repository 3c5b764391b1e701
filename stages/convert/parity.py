"""Prove a written file: the same images through our model from the source and through the consumer's own library.

Runs in a process of its own, because it needs both models in memory. Sees only what was uploaded.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from infra.errors import IntegrityError
from stages.convert.layouts import DTYPES
from stages.convert.source import Tensors, open_source
from stages.convert.task import CheckTask
from stages.vit.build import Model, build_model
from stages.vit.config import ModelSettings
from stages.vit.model import ViT
from stages.vit.native import TENSORS

NUM_IMAGES = 4
TOLERANCE = 1e-4
"""Largest difference of any output in fp32, times the largest absolute value where that is above 1. Measured
differences between equal models stay below 1e-5; another GELU, epsilon or order of q, k, v is above 1e-3."""


def check(task: CheckTask) -> dict[str, Any]:
    """The format's entry in parity.json."""
    folder = task.ctx.scratch / f"check-{task.format}"
    for file in task.files:
        local = folder / file.path
        local.parent.mkdir(parents=True, exist_ok=True)
        task.ctx.out.node.download(file.at, local, expect=file.digest)
    source = open_source(task.source, task.ctx.scratch / "source", task.config.use)
    proof = {"native": _round_trip, "timm": _timm}[task.format](source, folder / task.format, task.config.dtype)
    return {"architecture": _architecture(source.settings), "dtype": task.config.dtype} | proof


def _round_trip(source: Tensors, folder: Path, dtype: str) -> dict[str, Any]:
    """Native: every tensor, read back by the safetensors library, is the source's, bit by bit."""
    with safe_open(folder / TENSORS, "pt") as written:
        for name in source.shapes:
            if not torch.equal(written.get_tensor(name), source.read(name).to(DTYPES[dtype])):
                raise IntegrityError(f"read {name} back from {folder}", "it is not what was written", "check the disk")
    return {"round_trip": "bit-identical", "tensors": len(source.shapes)}


def _timm(source: Tensors, folder: Path, dtype: str) -> dict[str, Any]:
    try:
        import timm  # part of the extra `parity`: an export needs no timm, only its proof does
    except ImportError:
        return {"unchecked": "timm is not installed: pip install 'vitpipe[parity]'"}
    consumer = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images, tokens = parity_images(source.settings.image_px), quiet_tokens(source.settings)
    with torch.inference_mode():
        seen = consumer.forward_features(images / 127.5 - 1)
        theirs = Outputs(
            logits=consumer.forward_head(seen),
            features=consumer.forward_head(seen, pre_logits=True),
            encoded=consumer.norm(consumer.blocks(tokens)),
        )
        ours = outputs(load_model(source), images, tokens)
        rounded = outputs(load_model(source, DTYPES[dtype]), images, tokens) if dtype != "fp32" else ours
    return compare(ours, rounded, theirs) | {"library": f"timm {timm.__version__}"}


class Outputs(NamedTuple):
    """What is compared: logits; features, which a head of zeros would hide; and the encoder on quiet tokens."""

    logits: Tensor
    features: Tensor
    encoded: Tensor


def outputs(model: Model, images: Tensor, tokens: Tensor) -> Outputs:
    """Those of our own model; a ResNet has no encoder, and its features stand for it."""
    features_BR = model.features(images)
    encoded = model.encode(tokens) if isinstance(model, ViT) else features_BR
    return Outputs(model.head(features_BR), features_BR, encoded)


def compare(ours: Outputs, rounded: Outputs, theirs: Outputs) -> dict[str, Any]:
    """The figures of a proof, from our model, ours with weights rounded as written, and the consumer's.

    `error` is measured against the rounded one: rounding was asked for, any other difference was not.
    """
    largest = max(float(tensor.abs().max()) for tensor in rounded)
    errors = [float((one - other).abs().max()) for one, other in zip(rounded, theirs, strict=True)]
    return {
        "max_abs_difference": float((ours.logits - theirs.logits).abs().max()),
        "error": max(errors),
        "tolerance": TOLERANCE * max(1.0, largest),
        "images": len(ours.logits),
    }


def parity_images(image_px: int) -> Tensor:
    """The images of every proof, uint8 (B, 3, H, W): noise over a slope, so that no patch is like another."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 128, (NUM_IMAGES, 3, image_px, image_px), generator=generator)
    slope = torch.arange(image_px) * 127 // max(1, image_px - 1)
    return (noise + slope[:, None]).to(torch.uint8)


def quiet_tokens(settings: ModelSettings) -> Tensor:
    """Tokens (1, T, D) of variance 1e-6, where another LayerNorm epsilon shows: trained ones are too large for it."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, settings.tokens, settings.sizes.width, generator=generator) * 1e-3


def load_model(source: Tensors, rounding: torch.dtype = torch.float32) -> Model:
    """Our model with the source's tensors, rounded to a type but held in fp32."""
    with torch.device("meta"):
        model = build_model(source.settings)
    state = {name: source.read(name).to(rounding).float() for name in source.shapes}
    model.load_state_dict(state, assign=True)
    return model.eval()


def _architecture(settings: ModelSettings) -> str:
    variant = settings.variant
    return variant if isinstance(variant, str) else ", ".join(f"{key} {value}" for key, value in variant)
