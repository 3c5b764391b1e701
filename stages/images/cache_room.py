"""Room for shards on a shared disk: what lies there, what others are fetching, and who goes first. No torch.

Under one lock all of a folder's files are looked at, but only when they may be too many: a folder of 20,000 shards is
filled without looking at all of them for each.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vitpipe.infra.storage.folders import flock
from vitpipe.stages.images.rows import ROWS_SUFFIX

SPARE_BYTES = 1_000_000_000
"""Left free on the disk for whatever else writes there."""
PLENTY = 64
"""Where a disk has room for so many more, a shard is fetched without a look at what others are fetching."""
MANY = 1000
"""With more files than these, a twentieth of the room is made at a time."""


@dataclass(frozen=True)
class CacheRoom:
    """The room in a folder. Safe for many processes."""

    folder: Path
    max_bytes: int | None = None
    """Limit for all files together; left out, all of the disk but `SPARE_BYTES`."""

    def make(self, wanted: int, reservation: BinaryIO) -> bool:
        """Reserve `wanted` bytes, removing the least recently used files that nobody has mapped; returns success."""
        with locked(self.folder / "room.lock") as ledger:
            found = self._is_plenty(wanted, ledger) or self._make(wanted, Path(reservation.name), ledger)
            if found:
                os.ftruncate(reservation.fileno(), wanted)
            return found

    def _is_plenty(self, wanted: int, ledger: BinaryIO) -> bool:
        """Whether there is room without a look: by the disk, or by the sum that the ledger keeps, which is no less than
        what lies there."""
        if shutil.disk_usage(self.folder).free < SPARE_BYTES + PLENTY * wanted:
            return False
        if self.max_bytes is None:
            return True
        ledger.seek(0)
        held = ledger.read()
        if not held.isdigit() or int(held) + wanted > self.max_bytes:
            return False
        _write(ledger, int(held) + wanted)
        return True

    def _make(self, wanted: int, own: Path, ledger: BinaryIO) -> bool:
        files, reserved = self._files(own)
        written = sum(size for _, size, _ in files)
        most = written + shutil.disk_usage(self.folder).free - SPARE_BYTES  # removing files frees their bytes
        most = most if self.max_bytes is None else min(most, self.max_bytes)
        low = most - (most // 20 if len(files) > MANY else 0)
        if written + reserved + wanted > most:
            for _, size, file in sorted(files):
                if written + reserved + wanted <= low:
                    break
                written -= size if _removed(file) else 0
        found = written + reserved + wanted <= most
        _write(ledger, written + reserved + (wanted if found else 0))
        return found

    def _files(self, own: Path) -> tuple[list[tuple[int, int, Path]], int]:
        """When each file was last mapped, its size and path; and the bytes reserved for those that are not there yet.

        Reservations are looked at first: what is fetched meanwhile is then among the files, and never in neither. What
        an earlier fetch left of the shard whose lock is our `own` is part of what is wanted.
        """
        files: list[tuple[int, int, Path]] = []
        reserved: dict[Path, int] = {}
        for entry in self._entries():
            with suppress(FileNotFoundError):
                if entry.name.endswith(".lock") and entry.stat().st_size:
                    reserved[Path(entry.path).with_suffix("")] = _reserved(Path(entry.path))
        for entry in self._entries():
            if entry.name.endswith((".tar", ".rows", ".part", ROWS_SUFFIX)):
                path = Path(entry.path)
                lock = _lock_of(path)
                if path.suffix == ".part" and (lock == own or reserved.get(lock.with_suffix(""))):
                    continue  # it grows within its reservation; others are what killed fetches left
                with suppress(FileNotFoundError):  # removed meanwhile
                    facts = entry.stat()
                    files.append((facts.st_mtime_ns, facts.st_size, path))
                    reserved.pop(path.with_suffix(""), None)
        return files, sum(reserved.values())

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for folder in self.folder.glob("??"):
            yield from os.scandir(folder)


def _write(ledger: BinaryIO, held: int) -> None:
    ledger.truncate(0)  # it was opened to append
    ledger.write(str(held).encode())
    ledger.flush()


def _removed(file: Path) -> bool:
    """Remove a file unless some process has mapped it or is about to; returns whether it is gone."""
    try:
        with _lock_of(file).open("ab") as lock, file.open("rb") as kept:
            flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _lock_of(file: Path) -> Path:
    """Find the lock of a shard or an index, whole or a part of it: all share the digest that their names begin with."""
    return file.with_name(f"{file.name.partition('.')[0]}.lock")


def _reserved(lock: Path) -> int:
    """Bytes reserved by a living process that is fetching; a reservation ends with its process."""
    with suppress(FileNotFoundError), lock.open("rb") as file:
        try:
            flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.fstat(file.fileno()).st_size
    return 0


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """Hold an exclusive lock on a file, made if need be."""
    with path.open("a+b") as lock:
        flock(lock)
        yield lock
