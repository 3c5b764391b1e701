"""Shards on this machine's disk, keyed by digest: fetched once, verified once, shared by all processes. No torch.

Bounded: the least recently used tars make room, except those that some process has mapped. Where there is no room, or
the disk is full, nothing fails: the caller gets None, and reads from the store.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vitpipe.infra.errors import IntegrityError, StorageError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.folders import flock
from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.images.cache_room import CacheRoom, locked
from vitpipe.stages.images.manifest import ShardEntry
from vitpipe.stages.images.reader_watch import UNWATCHED, ReaderWatch
from vitpipe.stages.images.rows import ROWS_SUFFIX, IndexRows

RESTORE_BOTH = "restore both from a copy, or ingest again under another `name`"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class ShardCache:
    """A folder of tars named by their digest. Safe for many processes: one fetches, the others wait.

    Every tar in it was verified whole when it was put there.
    """

    folder: Path
    max_bytes: int | None = None
    """Limit for all shards together; left out, all of the disk but `SPARE_BYTES`."""
    watch: ReaderWatch = UNWATCHED
    """Where waits are counted, and shards that could not be kept reported."""

    def mapped(self, shards: ShardSet, entry: ShardEntry) -> mmap.mmap | None:
        """Map a tar, fetching it first if need be; None where there is no room for it.

        While the map lives, the tar counts as used and stays. IntegrityError when its digest is not the manifest's.
        """
        file, local = expected(shards, entry), self._tar(entry)
        while True:
            tar = _held(local, entry.bytes)
            if tar is not None:
                return tar
            try:
                with self._fetching(local) as reservation:
                    if not _has_size(local, entry.bytes) and not self._fetch(shards, file, local, reservation):
                        return None
                    tar = _held(local, entry.bytes)  # before anybody may remove it again
                    if tar is not None:
                        return tar
            except OSError as error:
                if error.errno in _FULL:
                    return None
                raise StorageError(f"keep a shard in {self.folder}", str(error), "make room there") from error

    def held(self, entry: ShardEntry) -> mmap.mmap | None:
        """Map a tar that is here; None for one that is not."""
        return _held(self._tar(entry), entry.bytes)

    def _tar(self, entry: ShardEntry) -> Path:
        return self.folder / entry.sha256[:2] / f"{entry.sha256}.tar"

    def rows(self, sha256: str, read: Callable[[], IndexRows]) -> IndexRows | None:
        """Map the rows of an index by its digest, kept here once `read` has made them; None where there is no room."""
        local = self.folder / sha256[:2] / f"{sha256}{ROWS_SUFFIX}"
        found = IndexRows.mapped(local)
        if found is not None:
            return found
        data = read().encode()
        try:
            with self._fetching(local) as reservation:
                if not self._room.make(len(data), reservation):
                    return None
                part = local.with_suffix(".part")  # the lock is ours
                try:
                    part.write_bytes(data)
                    part.replace(local)
                finally:
                    part.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in _FULL:
                return None
            raise StorageError(f"keep an index in {self.folder}", str(error), "make room there") from error
        return IndexRows.mapped(local)

    @property
    def _room(self) -> CacheRoom:
        return CacheRoom(self.folder, self.max_bytes)

    def _fetch(self, shards: ShardSet, file: File, local: Path, reservation: BinaryIO) -> bool:
        """Fetch a tar whose lock is held; returns whether there was room."""
        local.unlink(missing_ok=True)  # cut since it was verified: its size is wrong
        if not self._room.make(file.bytes, reservation):
            return False
        try:
            self._download(shards, file, local)
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _FULL:
                raise
            local.with_name(local.name + ".part").unlink(missing_ok=True)
            return False
        return True

    def _download(self, shards: ShardSet, file: File, local: Path) -> None:
        """Download a tar, a second time if the first arrived damaged: a bit that flips on the way does so once."""
        try:
            shards.store().download(file.at, local, expect=file.digest)
        except IntegrityError:
            traffic.count("retries")
            shards.store().download(file.at, local, expect=file.digest)

    @contextmanager
    def _fetching(self, local: Path) -> Iterator[BinaryIO]:
        """Hold the lock file of one shard; its length is the room that is reserved for the shard."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with locked(local.with_suffix(".lock")) as lock:
            yield lock
            os.ftruncate(lock.fileno(), 0)


def expected(shards: ShardSet, entry: ShardEntry) -> File:
    """Find the tar in the record. IntegrityError when the manifest gives another size or digest."""
    file = shards.file(entry.path)
    if (file.bytes, file.sha256) != (entry.bytes, entry.sha256):
        in_record, in_manifest = f"{file.bytes} bytes, {file.sha256}", f"{entry.bytes} bytes, {entry.sha256}"
        found = f"the record says {in_record}; the manifest {in_manifest}"
        raise IntegrityError(f"read {entry.path} of {shards.uri}", found, RESTORE_BOTH)
    return file


def _held(local: Path, size: int) -> mmap.mmap | None:
    """Map the tar if it is there; the shared lock on it ends with the map."""
    try:
        with local.open("rb") as file:
            flock(file, fcntl.LOCK_SH)
            found = os.fstat(file.fileno())
            if found.st_nlink == 0 or found.st_size != size:  # removed by another process meanwhile, or cut
                return None
            with suppress(OSError):  # another user's: how long ago it was used, its owner tells
                os.utime(file.fileno())
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return None


def _has_size(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False
