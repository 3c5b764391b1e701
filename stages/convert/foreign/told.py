"""What the artifact says of the foreign weights that it was made of, and the labels of any source. No torch."""

import hashlib
import json
from typing import Any

from stages.artifacts import Artifact
from stages.convert.foreign.look import Foreign


def labels_of(source: Artifact | Foreign) -> dict[str, dict[str, str]]:
    """Content of `labels.json`; of a source without labels empty."""
    if isinstance(source, Foreign):
        return {"id2label": {str(number): label for number, label in enumerate(source.labels)}}
    labels: dict[str, dict[str, str]] = (
        source.read_json("labels.json") if source.has("labels.json") else {"id2label": {}}
    )
    return labels


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
