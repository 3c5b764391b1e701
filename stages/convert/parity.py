"""Prove a written format: the same images through our model from the source and through the consumer's own library.

Runs in a process of its own, because it needs both models in memory. Sees only what was uploaded.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.convert.check_npz import npz_outputs
from vitpipe.stages.convert.check_onnx import onnx_outputs
from vitpipe.stages.convert.config import Dtype, Format
from vitpipe.stages.convert.consumers import timm_outputs, torchvision_outputs, transformers_outputs
from vitpipe.stages.convert.formats.common import unsaid
from vitpipe.stages.convert.own_model import (
    Absent,
    Given,
    Outputs,
    compare,
    load_model,
    load_rounded,
    own_outputs,
    parity_images,
)
from vitpipe.stages.convert.round_trip import round_trip
from vitpipe.stages.convert.task import CheckTask
from vitpipe.stages.convert.tensors import Tensors, open_source
from vitpipe.stages.vit.config import ModelSettings

CONSUMERS: Mapping[Format, Callable[[Given], tuple[str, Outputs]]] = {
    "timm": timm_outputs,
    "huggingface": transformers_outputs,
    "torchvision": torchvision_outputs,
    "google": npz_outputs,
    "google_big_vision": partial(npz_outputs, big_vision=True),
    "onnx": onnx_outputs,
}
"""What each format is proved by; native files are read back instead."""


def check(task: CheckTask) -> dict[str, Any]:
    """The format's entry in parity.json."""
    scratch, name, dtype = task.ctx.scratch / f"check-{task.format}", task.format, task.config.dtype
    for file in task.files:
        local = scratch / file.path
        local.parent.mkdir(parents=True, exist_ok=True)
        task.ctx.out.node.download(file.at, local, expect=file.digest)
    source = open_source(task.source, task.ctx.scratch / "source", task.config.use)
    proof: dict[str, Any] = {"architecture": _architecture(source.settings), "dtype": dtype}
    if name != "onnx":  # its graph holds no parameters by name
        proof |= round_trip(name, source, scratch / name, dtype)
    if name == "native":
        return _unchanged(proof, scratch / name)
    note = unsaid(name, source.settings)
    return proof | ({"note": note} if note else {}) | _ask(name, source, scratch / name, dtype)


def _ask(name: Format, source: Tensors, folder: Path, dtype: Dtype) -> dict[str, Any]:
    given = Given(source.settings, folder, dtype, parity_images(source.settings.image_px))
    with torch.inference_mode():
        try:
            library, theirs = CONSUMERS[name](given)
        except Absent as error:
            return {"unchecked": f"{error} is not installed: pip install 'vitpipe[parity]'"}
        ours = own_outputs(load_model(source), given)
        rounded = own_outputs(load_rounded(name, source, dtype), given) if dtype != "fp32" else ours
    return compare(ours, rounded, theirs) | {"library": library}


def _unchanged(proof: dict[str, Any], folder: Path) -> dict[str, Any]:
    if proof.get("differing"):
        found = f"{', '.join(proof['differing'])} is not what was written"
        raise IntegrityError(f"read {folder} back", found, "check the disk")
    return proof


def _architecture(settings: ModelSettings) -> str:
    variant = settings.variant
    return variant if isinstance(variant, str) else ", ".join(f"{key} {value}" for key, value in variant)
