"""The answers of timm to a Google file, read by timm's own loader of such files."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitpipe.stages.convert.consumers import see_timm
from vitpipe.stages.convert.described import NPZ
from vitpipe.stages.convert.own_model import Absent, Given, Outputs
from vitpipe.stages.convert.round_trip import array_to_tensor
from vitpipe.stages.convert.timm_config import timm_architecture, timm_arguments


def npz_outputs(given: Given, big_vision: bool = False) -> tuple[str, Outputs]:
    """By timm's `load_pretrained`. A representation layer, which timm leaves out, and the head behind it are then
    computed here from the file's own arrays."""
    try:
        import timm  # part of the extra `parity`: an export needs no timm, only its proof does
    except ImportError as error:
        raise Absent("timm") from error
    path, settings = given.folder / NPZ, given.settings
    model = _timm_resnet(given) if settings.family == "resnet" else _timm_vit(timm, given, big_vision)
    model.load_pretrained(str(path if given.dtype != "bf16" else _widened(path)))
    outputs = dict(see_timm(model.eval(), given))
    if settings.representation != "none":
        prefix = "params/" if big_vision else ""
        outputs["features"] = torch.tanh(_dense(path, f"{prefix}pre_logits", outputs["features"]))
        headless = settings.classes == 0
        outputs["logits"] = outputs["features"] if headless else _dense(path, f"{prefix}head", outputs["features"])
    return f"timm {timm.__version__}", outputs


def _timm_vit(timm: Any, given: Given, big_vision: bool) -> Any:
    """timm's model for the file: positions always as a table, and in big_vision's without the class token's row."""
    settings = given.settings
    arguments = timm_arguments(settings) | {"pos_embed": "learn"}
    if big_vision and settings.pool == "cls":
        arguments["no_embed_class"] = True
    classes = 0 if settings.representation != "none" else settings.classes
    return timm.create_model(timm_architecture(settings), num_classes=classes, **arguments)


def _timm_resnet(given: Given) -> Any:
    """timm's class rather than its functions, which have names for half of the paper's ResNets only."""
    from timm.layers import StdConv2d
    from timm.models.resnetv2 import ResNetV2

    numbers = given.settings.resnet
    assert numbers is not None
    return ResNetV2(
        layers=list(numbers.blocks),
        width_factor=numbers.width_factor,
        num_classes=given.settings.classes,
        stem_type="fixed",
        conv_layer=partial(StdConv2d, eps=1e-8),
    )


def _dense(path: Path, name: str, features_BR: Tensor) -> Tensor:
    with np.load(path, allow_pickle=False) as arrays:
        kernel, bias = (array_to_tensor(arrays[f"{name}/{part}"]).float() for part in ("kernel", "bias"))
    return features_BR @ kernel + bias


def _widened(path: Path) -> Path:
    """The file with its bf16 numbers as fp32: timm reads bf16 through jax alone, which a proof cannot ask for."""
    wide = path.with_name("widened.npz")
    with np.load(path, allow_pickle=False) as arrays:
        named: dict[str, Any] = {name: array_to_tensor(arrays[name]).float().numpy() for name in arrays.files}
        np.savez(wide, **named)
    return wide
