"""What the files beside foreign weights say of them: heads, GELU, epsilon, image size, normalisation, labels. No torch.

Reads Hugging Face's `config.json` and `preprocessor_config.json`, timm's `config.json` and our own `model.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.images.classes import names_in_order

Triple = tuple[float, float, float]
HALF: Triple = (0.5, 0.5, 0.5)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
"""timm.data.constants; torchvision.transforms._presets.ImageClassification."""

_GELU: dict[str, Literal["tanh", "erf"]] = {
    "gelu": "erf", "gelu_python": "erf", "gelu_new": "tanh", "gelu_tanh": "tanh", "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh", "gelu_fast": "tanh", "gelu_erf": "erf",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """Facts that tensors do not show; None where no file says them."""

    heads: int | None = None
    gelu: Literal["tanh", "erf"] | None = None
    norm_eps: float | None = None
    image_px: int | None = None
    mean: Triple | None = None
    std: Triple | None = None
    labels: tuple[str, ...] = ()
    pooled: str | None = None
    """timm's `global_pool`."""
    model: Mapping[str, Any] | None = None
    """Our own settings, from `model.json`."""
    notes: tuple[str, ...] = ()
    """What a person should know of them."""


def read_described(files: Mapping[str, Path], asked: str) -> Described:
    """From the companions that there are, by name.

    Errors: IntegrityError for a damaged one; UsageError for a function that we do not have.
    """
    content = {name: _json(path) for name, path in files.items()}
    try:
        if "model.json" in content:
            return _native(content["model.json"], content.get("labels.json", {}), asked)
        config = content.get("config.json", {})
        if "architecture" in config or "pretrained_cfg" in config:
            return _timm(config, asked)
        return _huggingface(config, content.get("preprocessor_config.json"), asked)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            asked, f"the files beside it cannot be understood: {error!r}", "fetch them again"
        ) from error


def _native(model: Mapping[str, Any], labels: Mapping[str, Any], asked: str) -> Described:
    if model["schema"] > 1:
        found = f"its model.json has schema {model['schema']}, written by a newer vitpipe; this one reads up to 1"
        raise UsageError("read native weights", found, "update vitpipe")
    return Described(labels=_ordered(labels, "labels.json", asked), model=model["model"])


def _timm(config: Mapping[str, Any], asked: str) -> Described:
    args, cfg = config.get("model_args", {}), config.get("pretrained_cfg", {})
    labels = config.get("label_names") or cfg.get("label_names") or ()
    sides = args.get("img_size") or cfg.get("input_size", [None])[-1]
    return Described(
        heads=args.get("num_heads"),
        gelu=_known_gelu(args["act_layer"], asked) if "act_layer" in args else None,
        image_px=sides if isinstance(sides, int) else None,
        mean=_triple(cfg.get("mean")),
        std=_triple(cfg.get("std")),
        labels=tuple(map(str, labels)) if isinstance(labels, list) else (),
        pooled=args.get("global_pool") or config.get("global_pool"),
    )


def _huggingface(config: Mapping[str, Any], images: Mapping[str, Any] | None, asked: str) -> Described:
    side = config.get("image_size")
    mean, std = None, None
    if images is not None:
        if images.get("do_rescale") is False:
            found = "its images are not divided by 255 (do_rescale false)"
            raise UsageError(asked, found, "say what they become: config.source.mean and std, of pixels in [0, 1]")
        plain = images.get("do_normalize") is False
        mean = (0.0, 0.0, 0.0) if plain else _triple(images.get("image_mean"))
        std = (1.0, 1.0, 1.0) if plain else _triple(images.get("image_std"))
    act = config.get("hidden_act", "gelu") if config else None
    labels = _ordered(config, "config.json", asked)
    placeholders = all(label == f"LABEL_{number}" for number, label in enumerate(labels))
    return Described(
        heads=config.get("num_attention_heads"),
        gelu=None if act is None else _known_gelu(act, asked),
        norm_eps=config.get("layer_norm_eps", 1e-12) if config else None,
        image_px=side if isinstance(side, int) else None,
        mean=mean,
        std=std,
        labels=() if placeholders else labels,
        notes=_contradicted(labels, config.get("label2id") or {}),
    )


def _known_gelu(name: str, asked: str) -> Literal["tanh", "erf"]:
    if name not in _GELU:
        found = f"its activation is {name}, known are {', '.join(sorted(_GELU))}"
        raise UsageError(asked, found, "the model would be another function: it cannot be converted")
    return _GELU[name]


def _triple(value: Any) -> Triple | None:
    if value is None:
        return None
    red, green, blue = (float(one) for one in value)
    return red, green, blue


def _ordered(said: Mapping[str, Any], file: str, asked: str) -> tuple[str, ...]:
    """The names of `id2label` in the order of its numbers, whatever the order in which they stand there.

    UsageError where it has gaps.
    """
    try:
        return names_in_order(said.get("id2label") or {})
    except ValueError as error:
        do = f"correct id2label in {file}, or take it out: its classes then have numbers alone"
        raise UsageError(asked, f"the file {file} beside it does not say which class is which: {error}", do) from error


def _contradicted(names: tuple[str, ...], label2id: Mapping[str, Any]) -> tuple[str, ...]:
    """Where `label2id` gives a name another number, in words; of a name that stands twice it can have one."""
    numbers = {name: number for number, name in enumerate(names)}
    for name, number in label2id.items():
        if name in numbers and names[int(number) : int(number) + 1] != (name,):
            told = f"label2id says {name!r} is class {number}, id2label {numbers[name]}"
            return (f"config.json contradicts itself: {told}, which stands, as it does for transformers",)
    return ()


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"read {path}", f"it is damaged: {error}", "fetch it again") from error
