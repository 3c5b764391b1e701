"""What everything else may ask of a store, whatever it is made of.

A store is a root URI (`file:///abs/path` or `s3://bucket/prefix`) and relative, `/`-separated paths below it.
It knows nothing of runs, nodes or records.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from vitpipe.infra.errors import IntegrityError


@dataclass(frozen=True)
class Digest:
    """Size in bytes and hexadecimal SHA-256 of some content."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One listed object: its path relative to the store's root, and its size in bytes."""

    path: str
    bytes: int
    version: str | None = field(default=None, compare=False)
    """Version to pass to `read`, where the listing has one."""
    state: str | None = field(default=None, compare=False)
    """Another text once the object was written to or replaced; None where the listing cannot tell. `read` takes it as
    a version."""


def replaced(asked: str) -> IntegrityError:
    """Make the error that `read` raises for another version than it was asked for."""
    return IntegrityError(asked, "the object was replaced while it was read", "run the same command again")


class Store(Protocol):
    """Objects under one root URI. Picklable; safe to use from several threads.

    Errors: NotFound, AlreadyExists, Changed as named below; StorageError (exit 7) once retries are spent.
    """

    @property
    def uri(self) -> str:
        """The absolute root URI, without a trailing slash."""

    def child(self, prefix: str) -> Self:
        """The store rooted one or more folders below this one."""

    def read(self, path: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """Read an object, or `length` bytes of it from byte `start`. NotFound when absent.

        IntegrityError when it was replaced since it had `version`.
        """

    def read_version(self, path: str) -> tuple[bytes, str]:
        """Read a whole object with its opaque version, to hand to `swap`. NotFound when absent."""

    def size(self, path: str) -> int | None:
        """Size in bytes, or None when absent."""

    def write(self, path: str, data: bytes) -> Digest:
        """Write a small object whole and atomically, replacing what is there."""

    def create(self, path: str, data: bytes) -> str:
        """Write a small object only if none is there; its version. AlreadyExists for the loser.

        The answer of a create can be lost and its retry then refused: the caller compares contents.
        """

    def swap(self, path: str, data: bytes, version: str) -> str:
        """Replace a small object only if it still has `version`; the new version. Changed for the loser.

        Such objects are read whole: a range of one may be of the version before.
        """

    def list(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        """Every object whose path begins with `prefix` (a plain string prefix) and sorts behind `after`, by path."""

    def folders(self) -> Iterator[str]:
        """Name the folders right below the root, sorted, by one request for a thousand; none where nothing is."""

    def copy(self, source: str, target: str) -> None:
        """Give an object a second name, replacing what is there, without its bytes passing through this process.

        Removing or replacing one of the two leaves the other. NotFound when `source` is absent.
        """

    def delete(self, path: str) -> None:
        """Remove an object; absent is fine."""

    def delete_all(self, paths: Sequence[str], before: Callable[[], object] = bool) -> None:
        """Remove objects, in no order, many by one request where the store takes that; absent is fine.

        `before` is called ahead of each request. The error is that of one which stays; others may be gone.
        """

    def upload(self, local: Path, path: str, given: Digest | None = None) -> Digest:
        """Copy a local file up (in parallel parts when large); its digest, computed while reading.

        `given` is the file's digest and gives it away: it may be moved instead, and is then not read again.
        """

    def download(self, path: str, local: Path, expect: Digest | None = None) -> Digest:
        """Copy an object down, resuming a partial copy; IntegrityError unless it is what `expect` says.

        The local file appears under its name only when complete and, if asked, verified.
        """

    def sweep(self, older_than_s: float) -> int:
        """Remove what interrupted writes left and no listing shows, if older than that; how many."""

    def clock_ahead_s(self) -> float:
        """Seconds by which the store's clock is ahead of this machine's, to about a second."""


class OneByOne:
    """What a store has whose server, if it has one, deletes one object at a time."""

    def delete(self, path: str) -> None:
        """Remove an object; absent is fine."""
        raise NotImplementedError

    def delete_all(self, paths: Sequence[str], before: Callable[[], object] = bool) -> None:
        """Remove objects, one after the other; `before` is called ahead of each."""
        for path in paths:
            before()
            self.delete(path)
