"""Prove that foreign weights were understood: the same images through their own library and through our model.

Runs in a process of its own, because it needs both models in memory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.foreign import consumers
from vitpipe.stages.convert.foreign.consumers import Consumer, Paths, Seen
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import Foreign, reopen
from vitpipe.stages.convert.own_model import TOLERANCE, Given, load_model, parity_images
from vitpipe.stages.convert.task import ProveTask
from vitpipe.stages.convert.tensors import Tensors
from vitpipe.stages.vit.build import Model
from vitpipe.stages.vit.model import ViT


def prove(task: ProveTask) -> dict[str, Any]:
    """The entry `source` of parity.json: the largest difference, or why it could not be had."""
    foreign = task.source
    named, paths = reopen(foreign, task.ctx.scratch / "source")
    facts = {"format": foreign.format, "architecture": foreign.architecture}
    try:
        library, consumer = CONSUMERS[foreign.format](foreign, paths)
    except consumers.Unavailable as error:
        return facts | {"unchecked": str(error)}
    images = parity_images(foreign.settings.image_px)
    with torch.inference_mode():
        tokens = None if foreign.settings.family == "resnet" else _quiet_tokens(foreign, images)
        theirs = consumer(_as_theirs(images, foreign), tokens)
        ours = _ours(load_model(Tensors(foreign.settings, *native_reader(named, foreign))), images, tokens)
    return facts | compare(ours, theirs, len(images)) | {"library": library}


def compare(ours: Seen, theirs: Seen, num_images: int) -> dict[str, Any]:
    """The largest difference of logits (of pooled features where there are none); as `error` the largest of any output,
    over its largest absolute value where that is above 1."""
    pairs = {name: (one, theirs[name]) for name, one in ours.items() if name in theirs}
    apart = {name: float((one - other).abs().max()) for name, (one, other) in pairs.items()}
    errors = [apart[name] / max(1.0, float(other.abs().max())) for name, (_, other) in pairs.items()]
    return {
        "max_abs_difference": apart.get("logits", apart["pooled"]),
        "error": max(errors, key=lambda error: (error != error, error)),  # one that is not a number is the worst
        "tolerance": TOLERANCE,
        "images": num_images,
        "compared": list(pairs),
    }


def _quiet_tokens(foreign: Foreign, images: Tensor) -> Tensor:
    return Given(foreign.settings, Path(), "fp32", images).tokens()


def _as_theirs(images: Tensor, foreign: Foreign) -> Tensor:
    mean, std = (torch.tensor(three)[:, None, None] for three in (foreign.mean, foreign.std))
    return (images / 255 - mean) / std


def _ours(model: Model, images: Tensor, tokens: Tensor | None) -> Seen:
    """Pooled before any representation layer, which most libraries have no place for."""
    if not isinstance(model, ViT) or tokens is None:
        features_BR = model.features(images)
        return {"pooled": features_BR, "logits": model.head(features_BR)}
    seen = {"pooled": model.pool(model.encode(model.embed(images))), "encoded": model.encode(tokens)}
    return seen if isinstance(model.head, nn.Identity) else seen | {"logits": model(images)}


CONSUMERS: Mapping[ForeignFormat, Callable[[Foreign, Paths], Consumer]] = {
    "native": consumers.native,
    "timm": consumers.timm_safetensors,
    "huggingface": consumers.huggingface,
    "torchvision": consumers.torchvision,
    "google": consumers.timm_npz,
    "google_big_vision": consumers.timm_npz,
}
