"""What the artifact says of the foreign weights that it was made of, and the labels of any source. No torch."""

import hashlib
import json
from typing import Any

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.convert.foreign.weights import Foreign
from vitpipe.stages.images.classes import LABELS, names_in_order


def labels_of(source: Artifact | Foreign, classes: int) -> dict[str, dict[str, str]]:
    """Content of `labels.json`, its names in the order of the head's `classes`; of a source without labels empty.

    Outputs beyond the names that a larger head has are called as Hugging Face calls them. IntegrityError for names
    that are not this head's.
    """
    if isinstance(source, Foreign):
        return {"id2label": {str(number): label for number, label in enumerate(source.labels)}}
    told: dict[str, Any] = source.read_json(LABELS) if source.has(LABELS) else {"id2label": {}}
    try:
        names = names_in_order(told["id2label"])
        if len(names) > classes:
            raise ValueError(f"{len(names)} names for a head of {classes} classes")
    except ValueError as error:
        raise IntegrityError(f"read {LABELS} of {source.uri}", str(error), "fetch or make it again") from error
    if names:
        names += tuple(f"LABEL_{number}" for number in range(len(names), classes))
    return told | {"id2label": {str(number): name for number, name in enumerate(names)}}


def source_json(foreign: Foreign) -> dict[str, Any]:
    """Content of `source.json`: where the weights came from, to the byte, and how they were read."""
    return {
        "path": foreign.source.path,
        "format": foreign.format,
        "files": _files(foreign),
        "sha256": listing_sha256(foreign),
        "marks": dict(foreign.marks),
        "model": foreign.settings.model_dump(mode="json"),
        "mean": list(foreign.mean),
        "std": list(foreign.std),
        "notes": list(foreign.notes),
    }


def listing_sha256(foreign: Foreign) -> str:
    """One digest for all files: the same wherever they lie."""
    return hashlib.sha256(json.dumps(_files(foreign), sort_keys=True).encode()).hexdigest()


def _files(foreign: Foreign) -> list[dict[str, Any]]:
    return [{"path": name, "bytes": digest.bytes, "sha256": digest.sha256} for name, digest in foreign.digests]
