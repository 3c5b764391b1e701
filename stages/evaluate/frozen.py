"""Frozen features: each image passes once through one model, whichever nodes and attempts of a run ask for it.

Pieces lie where all nodes of the run find them, named by what decides their content. Arranges; extracts nothing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vitpipe.infra.errors import UsageError, VitpipeError, gravest
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.work import unknown
from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.contract import Known, Out, StageContext
from vitpipe.stages.evaluate.work_items import EvaluateTask, ExtractTask, Features, Indices, Piece
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.flops import forward_macs

VERSION = 1
"""Raised when the same weights and images give other features."""
PART_IMAGES = 8192
"""Images of one task, so that a large split is spread over the cluster and a killed driver keeps what was done."""

Extract = Callable[[ExtractTask], Piece]


def features(
    about: EvaluateTask, split: str, seed: int, rows: Indices, extract: Extract, ctx: StageContext, resources: Any
) -> Features:
    """Features of the images `rows` (ascending) of a split; only what nobody has extracted yet is computed.

    Errors: those of the tasks, the gravest of several, once the others have left their pieces.
    """
    with ctx.shared.alone(description(about, split, seed)) as out:
        there = found(out)
        known = np.concatenate([piece.rows for piece in there]) if there else np.empty(0, np.int64)
        missing = np.setdiff1d(rows, known)
        parts = np.array_split(missing, -(-len(missing) // PART_IMAGES)) if len(missing) else []
        tasks = [ExtractTask(about, split, seed, part, out) for part in parts]
        made = run_all(extract, tasks, ctx, resources, lambda piece: _commit(out, piece), _seconds(about, ctx))
    reused = len(rows) - len(missing)
    ctx.metrics.inc("feature_images_total", len(missing))
    ctx.metrics.inc("feature_images_reused_total", reused)
    ctx.events.emit("features", f"{split}: {len(missing)} images through the model, {reused} had been through before")
    return Features(tuple(piece for piece in (*there, *made) if np.isin(piece.rows, rows).any()), len(missing))


def run_all(
    fn: Callable[[Any], Any], tasks: list[Any], ctx: StageContext, resources: Any,
    on_end: Callable[[Any], None] = lambda result: None, seconds: Callable[[Any], float | None] = unknown,
) -> list[Any]:  # fmt: skip
    """Results in the order of the tasks, each handed to `on_end` at once. The gravest error once all have ended."""
    results: dict[int, Any] = {}
    errors: list[Exception] = []
    for ended, end in enumerate(ctx.cluster.fan(fn, tasks, resources=resources, label=str, seconds=seconds), 1):
        if end.error is not None:
            errors.append(end.error)
        else:
            on_end(end.value())
            results[id(end.item)] = end.value()
        ctx.progress.update(ended, len(tasks), unit="tasks", note=f"last: {end.item}")
    unexpected = [error for error in errors if not isinstance(error, VitpipeError)]
    if errors:
        raise unexpected[0] if unexpected else gravest([one for one in errors if isinstance(one, VitpipeError)])
    return [results[id(task)] for task in tasks]


def _seconds(about: EvaluateTask, ctx: StageContext) -> Callable[[ExtractTask], float | None]:
    """By the estimate; raw pixels pass through no model."""
    if about.weights is None or about.weights.model is None:
        return unknown
    known = Known(gpus=ctx.cluster.gpus())
    model = ModelSettings.model_validate(about.weights.model)
    flops = 2 * forward_macs(model.model_copy(update={"image_px": about.config.image_px or model.image_px}))
    speed = known.gpu_flops if known.gpus else known.cpu_flops
    return lambda task: len(task.rows) * flops / speed


def description(about: EvaluateTask, split: str, seed: int) -> dict[str, Any]:
    """All that features depend on, by content: the weights' digests, the data's, and the way of an image."""
    config, weights = about.config, about.weights
    facts: dict[str, Any] = {
        "what": "frozen features", "version": VERSION, "of": config.features, "split": split,
        "data": about.data.manifest_sha256, "eval_resize": config.eval_resize,
        "image_px": config.image_px or (weights.model["image_px"] if weights and weights.model else None),
    }  # fmt: skip
    if weights is None or config.features == "raw_pixels":
        return facts
    facts |= {"position_resize": config.position_resize, "precision": config.precision}
    if config.features == "untrained":
        return facts | {"model": weights.model, "seed": seed}
    if not weights.has("native/model.safetensors"):
        held = ", ".join(getattr(weights, "formats", ())) or "no weights"
        raise UsageError(
            f"load the weights of {weights.uri}", f"it holds {held}", "convert with `native` among the formats"
        )
    return facts | {"weights": [weights.file(f"native/{name}").sha256 for name in ("model.safetensors", "model.json")]}


def found(out: Out) -> list[Piece]:
    """Pieces that this attempt or an earlier one committed. Torn ones do not count: their images are computed again."""
    pieces = []
    for attempt in (out.attempt, *out.earlier):
        for entry in out.node.list(f"{attempt}/part-"):
            if entry.path.endswith(".json") and (piece := _parse(out, entry.path)):
                pieces.append(piece)
    return pieces


def without_test(data: ShardSet) -> ShardSet:
    """The data as a task sees it that has still to choose: the test split's files cannot be read."""
    return data.model_copy(update={"files": tuple(file for file in data.files if not file.path.startswith("test-"))})


def _commit(out: Out, piece: Piece) -> None:
    """Make a piece true for all nodes: only while we hold the run."""
    content: dict[str, Any] = {
        "file": piece.file.model_dump(), "rows": piece.rows.tolist(), "images_per_second": piece.images_per_second,
    }  # fmt: skip
    out.commit(f"part-{piece.file.sha256[:16]}.json", json.dumps({"sha256": _digest(content), **content}).encode())


def _parse(out: Out, at: str) -> Piece | None:
    try:
        content = parse_object(out.node.read(at))
        if content.pop("sha256") != _digest(content):
            return None
        file = File.model_validate(content["file"])
        rows = np.asarray(content["rows"], dtype=np.int64)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = out.node.size(file.at) == file.bytes
    return Piece(out.node.uri, file, rows, content["images_per_second"]) if whole else None


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
