"""Whether a shard's index, or the rows made of one, are those of an entry of a manifest. No torch."""

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.cache import RESTORE_BOTH
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import Manifest, ShardEntry
from vitpipe.stages.images.rows import IndexRows


def check_index(index: ShardIndex, entry: ShardEntry, manifest: Manifest, shards: ShardSet) -> None:
    """Compare an index with its line in the manifest, and its labels with the classes. IntegrityError naming it."""
    classes = len(manifest.classes)
    wrong = [
        labels
        for labels in index.labels
        if bool(labels) != bool(classes) or (labels and (min(labels) < 0 or max(labels) >= classes))
    ]
    several = [labels for labels in index.labels if len(labels) > 1 and not manifest.multi_label]
    facts = (index.count, index.tar_bytes, index.sha256) == (entry.count, entry.bytes, entry.sha256)
    if wrong or several or not facts:
        found = f"labels {(wrong or several)[0]} with {classes} classes" if facts else "it is of another shard"
        raise IntegrityError(f"read {entry.index} of {shards.uri}", found, RESTORE_BOTH)


def check_rows(rows: IndexRows, entry: ShardEntry, manifest: Manifest, shards: ShardSet) -> None:
    """Compare rows that were checked when they were made, for this entry and manifest. Errors as `check_index`."""
    classes, labels = len(manifest.classes), rows.label_columns
    facts = (rows.count, rows.tar_bytes, rows.tar_sha256) == (entry.count, entry.bytes, entry.sha256)
    fits = bool(labels.shape[1]) == bool(classes) and labels.max(initial=-1) < classes
    if not (facts and fits and (manifest.multi_label or labels.shape[1] <= 1)):
        found = f"labels up to {labels.max(initial=-1)} with {classes} classes" if facts else "it is of another shard"
        raise IntegrityError(f"read {entry.index} of {shards.uri}", found, RESTORE_BOTH)
