"""Weights ready to name what images show: the model, its class names, how its head speaks and how it wants images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.images.classes import LABELS, names_in_order
from vitpipe.stages.images.evaluate import Fit
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.native import load_native, load_weights

Head = Literal["softmax", "sigmoid"]

FITS: tuple[Fit, ...] = get_args(Fit)
SCORE = "score.json"


@dataclass(frozen=True)
class OpenedWeights:
    """A model in evaluation mode, on a GPU where there is one."""

    model: Model
    names: tuple[str, ...]
    """Of the classes, in the order of the head's rows."""
    head: Head
    """softmax: one class an image; sigmoid: each class by itself."""
    fit: Fit
    resize_px: int | None
    antialias: bool

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device


def open_weights(given: Weights | Score | Path, scratch: Path) -> OpenedWeights:
    """Load an artifact's native weights, fetched to `scratch` and verified against its record, or those of a folder.

    A folder is a `native` one or what holds one. Errors: UsageError for pickles, missing files and a model without a
    head; IntegrityError for damaged files, and labels that are not the head's.
    """
    if isinstance(given, Path):
        native = given / "native" if (given / "native").is_dir() else given
        settings, state = load_native(native)
        labels = _read_json(native, LABELS)
        protocol = _read_json(native, SCORE).get("protocol", {})
    else:
        settings, state = load_weights(given, scratch)
        labels = given.read_json(LABELS) if given.has(LABELS) else {}
        protocol = given.protocol if isinstance(given, Score) else {}
    where = str(given) if isinstance(given, Path) else given.uri
    if not settings.classes:
        found = "they have no head: they were pretrained without labels"
        raise UsageError(f"predict with {where}", found, "fine-tune them first, and predict with the Score")
    model = build_model(settings)
    model.load_state_dict(state)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu")).float().eval()
    names = _names(labels, settings.classes, where)
    head: Head = "sigmoid" if labels.get("objective") == "sigmoid" else "softmax"
    return OpenedWeights(model, names, head, *_preparation(protocol))


def _read_json(native: Path, name: str) -> dict[str, Any]:
    """A small JSON file in the folder of native weights or in the one around it; empty when there is none."""
    for path in (native / name, native.parent / name):
        if path.is_file():
            try:
                content: dict[str, Any] = json.loads(path.read_bytes())
            except ValueError as error:
                raise IntegrityError(f"read {path}", f"it is damaged: {error}", "fetch or convert it again") from error
            return content
    return {}


def _names(labels: Mapping[str, Any], classes: int, where: str) -> tuple[str, ...]:
    """Class names; their numbers where the weights came without any."""
    known = labels.get("id2label") or {}
    if not known:
        return tuple(f"class {number}" for number in range(classes))
    try:
        names = names_in_order(known)
        if len(names) != classes:
            found = f"{len(names)} names for {classes} classes"
            raise ValueError(found + (f": none for class {len(names)}" if len(names) < classes else ""))
    except ValueError as error:
        raise IntegrityError(f"read the labels of {where}", str(error), "fetch or convert it again") from error
    return names


def _preparation(protocol: Mapping[str, Any]) -> tuple[Fit, int | None, bool]:
    """How the weights were tested; squashed to a square where nothing is told."""
    said = protocol.get("eval_resize")
    fit: Fit = next((known for known in FITS if known == said), "squash")
    return fit, protocol.get("crop_px"), protocol.get("antialias", True)
