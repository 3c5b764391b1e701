"""How a file comes down: into `NAME.part` in order, hashed on the way, named only when complete and verified.

Knows nothing of where the bytes come from.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.errors import IntegrityError, StorageError
from infra.storage.store import Digest

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Landing:
    """One file on its way from `source` (a URI, for messages) to `local`."""

    source: str
    local: Path
    expect: Digest | None = None

    def fetch(self, chunks: Callable[[int], Iterator[bytes]]) -> Digest:
        """Bring the file down; `chunks(start)` gives its bytes in order from byte `start`.

        What an earlier try left is gone on with, but only where `expect` can prove the whole. A whole that proves
        wrong after such a resume is fetched once more from the beginning. IntegrityError when it is still wrong.
        """
        if self.expect is not None and self.local.is_file() and digest_file(self.local) == self.expect:
            return self.expect
        try:
            self.local.parent.mkdir(parents=True, exist_ok=True)
            resumed = self.expect is not None and self._part.is_file()
            found = self._append(chunks, keep=resumed)
            if resumed and found != self.expect:
                found = self._append(chunks, keep=False)
            if self.expect is not None and found != self.expect:
                self._part.unlink()
                raise self._wrong(found, self.expect)
            os.replace(self._part, self.local)
        except OSError as error:
            raise StorageError(
                f"copy {self.source} to {self.local}",
                f"{error.filename or self._part}: {error.strerror or error}",
                "make room or give this user the right to it; the same command goes on where it ended",
            ) from error
        return found

    @property
    def _part(self) -> Path:
        return self.local.with_name(self.local.name + ".part")

    def _append(self, chunks: Callable[[int], Iterator[bytes]], keep: bool) -> Digest:
        digest = hashlib.sha256()
        with self._part.open("r+b" if keep else "w+b") as part:
            while chunk := part.read(CHUNK_BYTES):
                digest.update(chunk)
            start = part.tell()
            for chunk in chunks(start):
                digest.update(chunk)
                part.write(chunk)
            part.flush()
            os.fsync(part.fileno())
            return Digest(part.tell(), digest.hexdigest())

    def _wrong(self, found: Digest, expect: Digest) -> IntegrityError:
        return IntegrityError(
            f"copy {self.source} to {self.local}",
            f"{found.bytes} bytes with SHA-256 {found.sha256}, the record says {expect.bytes} bytes, {expect.sha256}",
            "the object was damaged or replaced: restore it from a copy, or run under another `name`",
        )


def digest_file(path: Path) -> Digest:
    """Size and SHA-256 of a local file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(os.fstat(file.fileno()).st_size, sha256)
