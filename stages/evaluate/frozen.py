"""Frozen features: each image passes once through one model, whichever nodes and attempts of a run ask for it.

Pieces lie where all nodes of the run find them, named by what decides their content. Arranges; extracts nothing.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitpipe.infra.json_object import parse_object
from vitpipe.infra.work import Item, Result, unknown
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import Out, StageContext
from vitpipe.stages.estimates import Known
from vitpipe.stages.evaluate.config import PART_IMAGES
from vitpipe.stages.evaluate.work_items import EvaluateTask, ExtractTask, FeaturePart, Features, Indices
from vitpipe.stages.seal import SEAL, seal_of
from vitpipe.stages.tasks import gather
from vitpipe.stages.vit.flops import forward_macs
from vitpipe.stages.vit.settings_file import native_files

VERSION = 1
"""Raised when the same weights and images give other features."""


def features(about: EvaluateTask, split: str, seed: int, rows: Indices, ctx: StageContext) -> Features:
    """Features of the images `rows` (ascending) of a split; only what nobody has extracted yet is computed.

    Errors: those of the tasks, the gravest of several, once the others have left their pieces.
    """
    with ctx.shared.alone(description(about, split, seed)) as out:
        there = found(out)
        known = np.concatenate([piece.rows for piece in there]) if there else np.empty(0, np.int64)
        missing = np.setdiff1d(rows, known)
        parts = np.array_split(missing, -(-len(missing) // PART_IMAGES)) if len(missing) else []
        tasks = [ExtractTask(about, split, seed, part, out) for part in parts]
        made = run_all(_extract, tasks, ctx, lambda piece: _commit(out, piece), _seconds(about, ctx))
    reused = len(rows) - len(missing)
    ctx.metrics.inc("feature_images_total", len(missing))
    ctx.metrics.inc("feature_images_reused_total", reused)
    ctx.events.emit("features", f"{split}: {len(missing)} images through the model, {reused} had been through before")
    return tuple(piece for piece in (*there, *made) if np.isin(piece.rows, rows).any())


def _extract(task: ExtractTask) -> FeaturePart:
    from vitpipe.stages.evaluate.features import extract  # torch is imported only where the work runs

    return extract(task)


def run_all(
    fn: Callable[[Item], Result],
    tasks: Sequence[Item],
    ctx: StageContext,
    on_end: Callable[[Result], None] = lambda result: None,
    seconds: Callable[[Item], float | None] = unknown,
) -> list[Result]:
    """Results in the order of the tasks, each handed to `on_end` at once. Errors as `gather`."""
    results: dict[int, Result] = {}
    if tasks:
        ctx.progress.update(0, len(tasks), unit="tasks")
    for task, result in gather(ctx.cluster.fan(fn, tasks, resources=ctx.resources, seconds=seconds)):
        on_end(result)
        results[id(task)] = result
        ctx.progress.update(len(results), len(tasks), unit="tasks", note=f"last: {task}")
    return [results[id(task)] for task in tasks]


def _seconds(about: EvaluateTask, ctx: StageContext) -> Callable[[ExtractTask], float | None]:
    """By the estimate; raw pixels pass through no model."""
    if about.weights is None or about.weights.model is None:
        return unknown
    known = Known(gpus=ctx.cluster.gpus())
    flops = 2 * forward_macs(about.weights.model.at(about.config.image_px))
    speed = known.gpu_flops if known.gpus else known.cpu_flops
    return lambda task: len(task.rows) * flops / speed


def description(about: EvaluateTask, split: str, seed: int) -> dict[str, Any]:
    """All that features depend on, by content: the weights' digests, the data's, and the way of an image."""
    config, weights = about.config, about.weights
    facts: dict[str, Any] = {
        "what": "frozen features",
        "version": VERSION,
        "of": config.features,
        "split": split,
        "data": about.data.manifest_sha256,
        **about.way.facts(),
        "image_px": about.image_px,
    }
    if weights is None or config.features == "raw_pixels":
        return facts
    facts |= {"position_resize": config.position_resize, "precision": config.precision}
    if config.features == "untrained":
        assert weights.model is not None
        # the fields that its record has, no younger ones: what was extracted before these came is found again
        return facts | {"model": weights.model.model_dump(mode="json", exclude_unset=True), "seed": seed}
    return facts | {"weights": [file.sha256 for file in native_files(weights)]}


def found(out: Out) -> list[FeaturePart]:
    """Pieces that this attempt or an earlier one committed. Torn ones do not count: their images are computed again."""
    attempts = (out.attempt, *out.earlier)
    paths = [entry.path for attempt in attempts for entry in out.node.list(f"{attempt}/part-")]
    return [piece for path in paths if path.endswith(".json") and (piece := _parse(out, path))]


def _commit(out: Out, part: FeaturePart) -> None:
    """Make a part true for all nodes: only while we hold the run."""
    content: dict[str, Any] = {
        "file": part.file.model_dump(),
        "rows": part.rows.tolist(),
        "images_per_second": part.images_per_second,
    }
    out.commit(f"part-{part.file.sha256[:16]}.json", json.dumps({SEAL: seal_of(content), **content}).encode())


def _parse(out: Out, at: str) -> FeaturePart | None:
    try:
        content = parse_object(out.node.read(at))
        if content.pop(SEAL) != seal_of(content):
            return None
        file = File.model_validate(content["file"])
        rows = np.asarray(content["rows"], dtype=np.int64)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = out.node.size(file.at) == file.bytes
    return FeaturePart(out.node.uri, file, rows, content["images_per_second"]) if whole else None
