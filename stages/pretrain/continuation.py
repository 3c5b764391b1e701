"""Continuing another training from its checkpoint: what may differ from its recipe, and what may not. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from vitpipe.infra.errors import DriftError, IntegrityError, UsageError
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.pretrain.config import PretrainConfig
from vitpipe.stages.record import read_record

FREE = ("total", "schedule", "evaluate")
"""Fields of the config that may differ; all others decide what the optimiser's state means."""


def refuse_change(config: PretrainConfig, shards: Sequence[ShardSet], given: Checkpoint) -> None:
    """DriftError naming the fields where the recipe is not that of the checkpoint, or its data are others.

    Also IntegrityError for a record without a recipe of ours, StorageError.
    """
    record, _ = read_record(given.uri)
    try:
        before = PretrainConfig.model_validate(record.config)
    except ValidationError as error:
        raise IntegrityError(f"go on from {given.uri}", f"its recipe is not one of ours: {error}", "") from error
    found = changed_fields(before, config)
    data = tuple(one.manifest_sha256 for one in shards)
    if data != given.shards_sha256:
        digests = (", ".join(digest[:12] for digest in one) for one in (given.shards_sha256, data))
        found.append("needs.shards, manifest SHA-256 " + " -> ".join(digests))
    refuse(found, given.uri)


def refuse(found: Sequence[str], uri: str) -> None:
    """DriftError for any differences found."""
    if found:
        do = f"set them back; only {', '.join(FREE)} may differ. `init` takes the parameters alone, for another recipe"
        raise DriftError(f"go on from {uri}", f"the recipe differs: {'; '.join(found)}", do)


def refuse_end(total_steps: int, step: int, uri: str) -> None:
    """UsageError where nothing is left to do."""
    if total_steps <= step:
        found = f"it has made {step} steps, and the new total is {total_steps}"
        raise UsageError(f"go on from {uri}", found, "raise config.total")


def changed_fields(before: PretrainConfig, now: PretrainConfig) -> list[str]:
    """`config.optimizer.peak_lr 0.001 -> 0.003` for each field that may not differ and does."""
    old, new = (one.model_dump(mode="json", exclude=set(FREE)) for one in (before, now))
    return list(_changed("config", old, new))


def _changed(name: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _changed(f"{name}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [f"{name} {old} -> {new}"]
