"""Shards on this machine's disk, keyed by digest: fetched once, verified once, shared by all processes. No torch."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.errors import IntegrityError, StorageError
from stages.artifacts import ShardSet
from stages.images.manifest import ShardEntry


@dataclass(frozen=True)
class ShardCache:
    """Tars under their digest on this machine's disk. Safe for many processes: one fetches, the others wait.

    What stands under a name was verified whole when it was put there.
    """

    folder: Path

    def path(self, shards: ShardSet, entry: ShardEntry) -> Path:
        """Where the tar lies, fetching it first if need be. IntegrityError when its digest is not the manifest's."""
        local = self.folder / entry.sha256[:2] / f"{entry.sha256}.tar"
        if not _has_size(local, entry.bytes):
            with self._alone(local):
                if not _has_size(local, entry.bytes):
                    self._fetch(shards, entry, local)
        return local

    def _fetch(self, shards: ShardSet, entry: ShardEntry, local: Path) -> None:
        file = shards.file(entry.path)
        if (file.bytes, file.sha256) != (entry.bytes, entry.sha256):
            raise IntegrityError(
                f"read {entry.path} of {shards.uri}",
                f"the record says {file.bytes} bytes, {file.sha256}; the manifest {entry.bytes} bytes, {entry.sha256}",
                "run the node again with --replace",
            )
        local.unlink(missing_ok=True)  # cut since it was verified: its size is wrong
        shards.store().download(file.at, local, expect=file.digest)

    @contextmanager
    def _alone(self, local: Path) -> Iterator[None]:
        """Hold the lock of one shard on this machine."""
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            with open(local.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StorageError(f"keep a shard in {self.folder}", str(error), "make room there") from error


def _has_size(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False
