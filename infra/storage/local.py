"""A store in a local (or network) folder, for `file://` URIs.

Every write is whole or absent: a temporary file, fsync, then rename or link. Knows nothing of S3, runs or records.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from vitpipe.infra.errors import AlreadyExists, Changed, NotFound, StorageError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.chain import Chain, ChainState
from vitpipe.infra.storage.folders import is_folder, link_new, link_over, open_new, state_of, sync_folder, walk
from vitpipe.infra.storage.landing import CHUNK_BYTES, Landing
from vitpipe.infra.storage.names import HIDDEN, checked, checked_prefix
from vitpipe.infra.storage.store import Digest, Entry, OneByOne, replaced

TEMPORARY = HIDDEN + "tmp-"
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True)
class LocalStore(OneByOne):
    """Objects as files below `root`. See `infra.storage.store.Store` for the meaning of each method."""

    root: Path

    @property
    def uri(self) -> str:
        return f"file://{self.root}"

    def child(self, prefix: str) -> Self:
        return type(self)(self.root / checked(prefix))

    def read(self, path: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        if (start, length, version) == (0, None, None):
            return self._state(path).data
        with self._reading(path) as file:
            if version not in (None, state_of(os.fstat(file.fileno()))):
                raise replaced(f"read {self.uri}/{path}")
            file.seek(start)
            data = file.read(-1 if length is None else length)
        traffic.count("read_bytes", len(data))
        return data

    def read_version(self, path: str) -> tuple[bytes, str]:
        state = self._state(path)
        if state.behind:
            with suppress(OSError):  # a process that may only read leaves that to others
                self._chain(path).mend(state)
        return state.data, state.version

    def size(self, path: str) -> int | None:
        try:
            with self._reading(path) as file:
                return os.fstat(file.fileno()).st_size
        except NotFound:
            return None

    def write(self, path: str, data: bytes) -> Digest:
        with self._said("write", path):
            swapped = self._chain(path).put(data)
        if not swapped:
            self._place(path, lambda file: file.write(data), os.replace)
        return Digest(len(data), hashlib.sha256(data).hexdigest())

    def create(self, path: str, data: bytes) -> str:
        try:
            self._place(path, lambda file: file.write(data), link_new)
        except FileExistsError:
            raise AlreadyExists(f"create {self.uri}/{path}", "an object of that name is there already") from None
        return ChainState(1, data).version

    def swap(self, path: str, data: bytes, version: str) -> str:
        chain = self._chain(path)
        with self._said("replace", path):
            try:
                swapped = chain.swap(data, version)
            except _ABSENT:
                swapped = None
        if swapped is None:
            raise Changed(f"replace {self.uri}/{path}", "it was changed or removed since it was read")
        traffic.count("written_bytes", len(data))
        return swapped

    def list(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        folder, _, _ = checked_prefix(prefix).rpartition("/")
        with self._said("list", prefix):
            paths = walk(self.root / folder, f"{folder}/" if folder else "")
            found = [one for one in paths if one.path.startswith(prefix) and one.path > after]
        yield from sorted(found, key=lambda entry: entry.path)

    def folders(self) -> Iterator[str]:
        with self._said("list", ""), suppress(*_ABSENT):
            found = [one.name for one in os.scandir(self.root) if is_folder(one)]
            yield from sorted(name for name in found if not name.startswith(HIDDEN))

    def copy(self, source: str, target: str) -> None:
        with self._reading(source) as file:
            if not link_over(self._where(source), self._where(target), TEMPORARY + secrets.token_hex(8)):
                self._place(target, lambda copy: shutil.copyfileobj(file, copy, CHUNK_BYTES), os.replace)

    def delete(self, path: str) -> None:
        chain = self._chain(path)
        with self._said("delete", path), suppress(*_ABSENT):
            chain.delete()
            self._prune(chain.where.parent)

    def upload(self, local: Path, path: str, given: Digest | None = None) -> Digest:
        if given is not None and self._moved(local, path, given.bytes):
            return given
        digest = hashlib.sha256()
        size = 0

        def copy(target: BinaryIO) -> None:
            nonlocal size
            chunk = memoryview(bytearray(CHUNK_BYTES))
            with local.open("rb", buffering=0) as source:
                while count := source.readinto(chunk):
                    digest.update(chunk[:count])
                    size += count
                    target.write(chunk[:count])

        self._place(path, copy, os.replace)
        return Digest(size, digest.hexdigest())

    def download(self, path: str, local: Path, expect: Digest | None = None) -> Digest:
        return Landing(f"{self.uri}/{path}", local, expect).fetch(lambda start: self._chunks(path, start))

    def sweep(self, older_than_s: float) -> int:
        """Remove temporary files that interrupted writers left; how many."""
        limit = time.time() + self.clock_ahead_s() - older_than_s  # files bear the times of the store's clock
        removed = 0
        with self._said("sweep", ""):
            for left in self.root.rglob(f"{TEMPORARY}*"):
                if left.stat().st_mtime < limit:
                    left.unlink(missing_ok=True)
                    removed += 1
        return removed

    def clock_ahead_s(self) -> float:
        now = []

        def stamp(temporary: Path, where: Path) -> None:
            now.append((temporary.stat().st_mtime, time.time()))

        self._place("clock", lambda file: file.write(b"?"), stamp)
        return now[0][0] - now[0][1]

    def _where(self, path: str) -> Path:
        return self.root / checked(path)

    def _chunks(self, path: str, start: int) -> Iterator[bytes]:
        with self._reading(path) as file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                traffic.count("read_bytes", len(chunk))
                yield chunk

    def _chain(self, path: str) -> Chain:
        return Chain(self._where(path))

    def _state(self, path: str) -> ChainState:
        chain = self._chain(path)
        with self._said("read", path):
            state = chain.read()
        traffic.count("read_bytes", len(state.data))
        return state

    @contextmanager
    def _reading(self, path: str) -> Iterator[BinaryIO]:
        where = self._where(path)
        with self._said("read", path), where.open("rb") as file:
            yield file

    @contextmanager
    def _said(self, verb: str, path: str) -> Iterator[None]:
        """Turn an error of the file system into a StorageError that names the path, NotFound for what is not there."""
        try:
            yield
        except FileExistsError:
            raise  # the loser of a create: the caller names it
        except OSError as error:
            if verb == "read" and isinstance(error, _ABSENT):
                raise NotFound(f"read {self.uri}/{path}", "no object of that name") from None
            found = f"{error.filename or self.root / path}: {error.strerror or error}"
            raise StorageError(f"{verb} {self.uri}/{path}", found, _REMEDY.get(error.errno or 0, "")) from error

    def _place(self, path: str, fill: Callable[[BinaryIO], object], put: Callable[[Path, Path], None]) -> None:
        """Fill a temporary file beside `path`, then put it there in one step."""
        where = self._where(path)
        temporary = where.with_name(TEMPORARY + secrets.token_hex(8))
        with self._said("write", path):
            try:
                with open_new(temporary) as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                    size = file.tell()
                put(temporary, where)
                traffic.count("written_bytes", size)
            except IsADirectoryError:
                raise StorageError(f"write {self.uri}/{path}", "a folder of that name is there") from None
            finally:
                if os.path.lexists(temporary):
                    temporary.unlink(missing_ok=True)
            sync_folder(where.parent)

    def _moved(self, local: Path, path: str, size: int) -> bool:
        """Move a file in; False where that cannot be done, for instance from another disk."""
        where = self._where(path)
        try:
            with local.open("rb") as file:
                os.fsync(file.fileno())
                if os.fstat(file.fileno()).st_size != size:
                    return False
            where.parent.mkdir(parents=True, exist_ok=True)
            os.replace(local, where)
        except OSError:
            return False  # copying says what is wrong, if it is
        sync_folder(where.parent)
        traffic.count("written_bytes", size)
        return True

    def _prune(self, folder: Path) -> None:
        """Remove folders that became empty, as they would on S3; never the root."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or another process was quicker
                return
            folder = folder.parent


_REMEDY = {
    errno.ENOSPC: "free some disk space, then run the same command again",
    errno.EDQUOT: "free some of your quota, then run the same command again",
    errno.EROFS: "choose a store that can be written",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give this user the right to it, or choose another store"),
    **dict.fromkeys((errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK), "its file system lacks that: choose another store"),
}
