"""How a file is downloaded: into `NAME.part` in order, hashed on the way, named only when complete and verified.

Safe for several processes that want one file. Knows nothing of where the bytes come from.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from vitpipe.infra.errors import IntegrityError, StorageError
from vitpipe.infra.storage.folders import flock
from vitpipe.infra.storage.store import Digest

CHUNK_BYTES = 1 << 20
Chunks: TypeAlias = Callable[[int], Iterator[bytes | memoryview]]


@dataclass(frozen=True)
class Landing:
    """One file on its way from `source` (a URI, for messages) to `local`."""

    source: str
    local: Path
    expect: Digest | None = None

    def fetch(self, chunks: Chunks) -> Digest:
        """Download the file; `chunks(start)` yields its bytes in order from byte `start`, each used up before the next.

        A part that an earlier try left is resumed, but only where `expect` can prove the whole. A whole that proves
        wrong after that is fetched once more from the beginning. IntegrityError when it is still wrong.
        """
        if self._landed():
            return self.expect  # type: ignore[return-value]  # what has landed was expected
        try:
            self.local.parent.mkdir(parents=True, exist_ok=True)
            with self._alone() as part:
                return self._fetch(part, chunks)
        except OSError as error:
            found = f"{error.filename or self._part}: {error.strerror or error}"
            do = "make room or give this user the right to it; the same command goes on where it ended"
            raise StorageError(f"copy {self.source} to {self.local}", found, do) from error

    @property
    def _part(self) -> Path:
        return self.local.with_name(self.local.name + ".part")

    def _landed(self) -> bool:
        return self.expect is not None and self.local.is_file() and digest_file(self.local) == self.expect

    @contextmanager
    def _alone(self) -> Iterator[BinaryIO]:
        """Open the part for this process alone: a second one that wants the file waits, and finds it landed."""
        while True:
            with os.fdopen(os.open(self._part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as part:
                flock(part)
                if _stands_at(part, self._part):
                    yield part
                    return

    def _fetch(self, part: BinaryIO, chunks: Chunks) -> Digest:
        if self._landed():
            self._part.unlink()
            return self.expect  # type: ignore[return-value]
        resumed = self.expect is not None and os.fstat(part.fileno()).st_size > 0
        found = _append(part, chunks, keep=resumed)
        if resumed and found != self.expect:
            found = _append(part, chunks, keep=False)
        if self.expect is not None and found != self.expect:
            self._part.unlink()
            said = f"the record says {self.expect.bytes} bytes, {self.expect.sha256}"
            what = f"{found.bytes} bytes with SHA-256 {found.sha256}, {said}"
            do = "the object was damaged or replaced: restore it from a copy, or run under another `name`"
            raise IntegrityError(f"copy {self.source} to {self.local}", what, do)
        os.replace(self._part, self.local)
        return found


def _append(part: BinaryIO, chunks: Chunks, keep: bool) -> Digest:
    digest = hashlib.sha256()
    part.seek(0)
    if not keep:
        part.truncate()
    while found := part.read(CHUNK_BYTES):
        digest.update(found)
    for chunk in chunks(part.tell()):
        digest.update(chunk)
        part.write(chunk)
    part.flush()
    os.fsync(part.fileno())
    return Digest(part.tell(), digest.hexdigest())


def _stands_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has that name: whoever held it before us may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def digest_file(path: Path) -> Digest:
    """Size and SHA-256 of a local file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(os.fstat(file.fileno()).st_size, sha256)
