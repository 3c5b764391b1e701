"""What a store in a folder needs of the file system: durable new names, locks, and a walk.

Knows nothing of stores.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.storage.names import HIDDEN


def open_new(path: Path) -> BinaryIO:
    """Open a new file; its folder is made, again when a deletion elsewhere has just pruned it."""
    for _ in range(100):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(error.errno, "a file is where a folder is needed", error.filename) from None
        try:
            return path.open("xb")
        except FileNotFoundError:
            continue
    return path.open("xb")


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable. A folder that was removed meanwhile has none left to keep."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock, a file because NFS locks no folder, among threads and processes alike."""
    while True:
        with lock.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still(file, lock):  # else its object was deleted, and the lock with it, while we waited
                yield
                return


def _is_still(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def state_of(file: os.stat_result) -> str:
    """Another after the file was written to or replaced."""
    return f"{file.st_ino}-{file.st_size}-{file.st_mtime_ns}"


def walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[str, int]]:
    """Every visible file below `folder` with its size. Links are followed, except back up into a folder above."""
    try:
        entries = list(os.scandir(folder))
        here = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # it was never there, or was removed while we listed
    inside = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        if entry.name.startswith(HIDDEN):
            continue
        try:
            facts = entry.stat()
        except FileNotFoundError:
            continue
        if not entry.is_dir():
            yield prefix + entry.name, facts.st_size
        elif (facts.st_dev, facts.st_ino) not in inside:
            yield from walk(folder / entry.name, f"{prefix}{entry.name}/", inside)
