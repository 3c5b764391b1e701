"""`model.json`, the settings that accompany native weights, and the names of both files. No torch."""

import json
from pathlib import Path

from pydantic import ValidationError

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import File, Score, Weights
from vitpipe.stages.model_settings import ModelSettings

TENSORS, SETTINGS = "model.safetensors", "model.json"
_PLAIN, SCHEMA = 1, 2
"""Of settings that every version reads, and of those with later parts: an older one refuses these by the number."""


def native_files(artifact: Weights | Score) -> tuple[File, File]:
    """Find both files among an artifact's, the tensors first. UsageError when it has none."""
    if not artifact.has(f"native/{TENSORS}"):
        held = ", ".join(getattr(artifact, "formats", ())) or "no weights"
        do = "convert with `native` among the formats"
        raise UsageError(f"load the weights of {artifact.uri}", f"it holds {held}", do)
    return artifact.file(f"native/{TENSORS}"), artifact.file(f"native/{SETTINGS}")


def settings_json(settings: ModelSettings) -> bytes:
    """Encode `model.json`."""
    schema = SCHEMA if settings.later_parts or settings.gelu == "quick" else _PLAIN
    content = {"schema": schema, "format": "vitpipe-native", "model": settings.model_dump(mode="json")}
    return (json.dumps(content, indent=1) + "\n").encode()


def read_settings(path: Path) -> ModelSettings:
    """Read `model.json`. Errors: UsageError when absent or of a newer schema, IntegrityError when damaged."""
    if not path.is_file():
        raise UsageError(f"read {path}", "no such file", "native weights need their settings beside them")
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] > SCHEMA:
            found = f"schema {content['schema']} was written by a newer vitpipe; this one reads up to {SCHEMA}"
            raise UsageError(f"read {path}", found, "update vitpipe")
        return ModelSettings.model_validate(content["model"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise IntegrityError(f"read {path}", f"it is damaged: {error}", "fetch or convert it again") from error
