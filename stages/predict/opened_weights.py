"""Open weights, wherever they lie: the model, its class names, how its head speaks and how it wants images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.images.classes import LABELS, names_in_order
from vitpipe.stages.predict.manner import Head, Manner
from vitpipe.stages.predict.ready_model import ReadyResNet, ReadyViT, ready_model
from vitpipe.stages.preparation import PREPARATION, EvalWay, as_tested, read_preparation
from vitpipe.stages.vit.native import load_native, load_weights

SCORE = "score.json"


def open_weights(given: Weights | Score | Path, scratch: Path) -> ReadyViT | ReadyResNet:
    """Load an artifact's native weights, fetched to `scratch` and verified against its record, or those of a folder.

    The model is in evaluation mode, in fp32, on a GPU where there is one. A folder is a `native` one or what holds one.
    Errors: UsageError for pickles and missing files; IntegrityError for damaged files, and labels that are not the
    head's.
    """
    if isinstance(given, Path):
        native = given / "native" if (given / "native").is_dir() else given
        settings, state = load_native(native)
        labels = _read_json(native, LABELS)
        protocol = _read_json(native, SCORE).get("protocol", {})
        said = _read_json(native, PREPARATION)
    else:
        settings, state = load_weights(given, scratch)
        labels = given.read_json(LABELS) if given.has(LABELS) else {}
        protocol = given.protocol if isinstance(given, Score) else {}
        said = given.read_json(PREPARATION) if given.has(PREPARATION) else {}
    where = str(given) if isinstance(given, Path) else given.uri
    names = _names(labels, settings.classes or 0, where)
    head: Head = "sigmoid" if labels.get("objective") == "sigmoid" else "softmax"
    way = EvalWay(read_preparation(said, where)) if said and not protocol else as_tested(protocol)
    model = ready_model(settings, Manner(where, names, head, way))
    model.load_state_dict(state)
    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu")).float().eval()


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
    if not known or not classes:
        return tuple(f"class {number}" for number in range(classes))
    try:
        names = names_in_order(known)
        if len(names) != classes:
            found = f"{len(names)} names for {classes} classes"
            raise ValueError(found + (f": none for class {len(names)}" if len(names) < classes else ""))
    except ValueError as error:
        raise IntegrityError(f"read the labels of {where}", str(error), "fetch or convert it again") from error
    return names
