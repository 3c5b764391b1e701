"""Where weights come from and what their classes are called, in words and digests that stay with them. No torch."""

import hashlib
import json
from typing import Any

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Artifact, Checkpoint, Weights
from vitpipe.stages.convert.foreign.weights import ForeignWeights
from vitpipe.stages.convert.formats.common import About
from vitpipe.stages.convert.task import Source, WriteTask
from vitpipe.stages.images.classes import LABELS, names_in_order
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import PREPARATION, Preparation, read_preparation


def about_of(task: WriteTask, settings: ModelSettings) -> About:
    """What a task writes of the weights beside their numbers."""
    config = task.config
    way = task.preparation or Preparation()
    return About(settings, task.labels, config.license, lineage_of(task.source), config.dtype, task.sigmoid, way)


def labels_of(source: Artifact | ForeignWeights, classes: int) -> dict[str, Any]:
    """Content of `labels.json`, its names in the order of the head's `classes`; of a source without labels empty.

    Outputs beyond the names that a larger head has are called as Hugging Face calls them. IntegrityError for names
    that are not this head's.
    """
    if isinstance(source, ForeignWeights):
        named: dict[str, Any] = {"id2label": {str(number): label for number, label in enumerate(source.labels)}}
        return named | ({"objective": "sigmoid"} if source.sigmoid else {})
    content: dict[str, Any] = source.read_json(LABELS) if source.has(LABELS) else {"id2label": {}}
    try:
        names = names_in_order(content["id2label"])
        if len(names) > classes:
            raise ValueError(f"{len(names)} names for a head of {classes} classes")
    except ValueError as error:
        raise IntegrityError(f"read {LABELS} of {source.uri}", str(error), "fetch or make it again") from error
    if names:
        names += tuple(f"LABEL_{number}" for number in range(len(names), classes))
    return content | {"id2label": {str(number): name for number, name in enumerate(names)}}


def lineage_of(source: Source) -> dict[str, str]:
    """What the source says of itself; converted weights keep what they were told, so copies of copies agree."""
    if isinstance(source, Weights):
        return dict(source.lineage)
    if isinstance(source, Checkpoint):
        said = {"step": str(source.step), "samples seen": str(source.samples_seen)}
        if source.shards_sha256:
            said["pretrained on (SHA-256 of manifests)"] = ", ".join(source.shards_sha256)
        return _named(source) | said
    return _named(source)


def preparation_of(source: Artifact | ForeignWeights) -> Preparation | None:
    """How an image gets to the model's size as its makers say, where they do. IntegrityError for a damaged file."""
    if isinstance(source, ForeignWeights):
        return source.preparation
    if not isinstance(source, Weights) or not source.has(PREPARATION):
        return None
    return read_preparation(source.read_json(PREPARATION), source.uri)


def source_json(foreign: ForeignWeights) -> dict[str, Any]:
    """Content of `source.json`: where the weights came from, to the byte, and how they were read."""
    return {
        "path": foreign.source.path,
        "format": foreign.format,
        "files": _files(foreign),
        "sha256": listing_sha256(foreign),
        "marks": dict(foreign.marks),
        "model": foreign.settings.model_dump(mode="json"),
        "mean": list(foreign.pixels.mean),
        "std": list(foreign.pixels.std),
        "preparation": foreign.preparation.model_dump() if foreign.preparation else None,
        "notes": list(foreign.notes),
    }


def listing_sha256(foreign: ForeignWeights) -> str:
    """One digest for all files: the same wherever they lie."""
    return hashlib.sha256(json.dumps(_files(foreign), sort_keys=True).encode()).hexdigest()


def _files(foreign: ForeignWeights) -> list[dict[str, Any]]:
    return [{"path": name, "bytes": digest.bytes, "sha256": digest.sha256} for name, digest in foreign.digests]


def _named(source: Source) -> dict[str, str]:
    """Run and node, without the place they lie at, and the digest of the record that vouches for them."""
    named = {"source": "/".join(source.uri.rstrip("/").split("/")[-2:])}
    if isinstance(source, ForeignWeights):
        return named | {f"SHA-256 of {name}": digest.sha256 for name, digest in source.digests}
    return named | ({"record SHA-256": source.origin.record_sha256} if source.origin else {})
