"""What a store in a folder needs of its file system: durable new names, links, locks, a walk. Knows no store."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.names import HIDDEN, LOCK
from vitpipe.infra.storage.store import Entry

_UNABLE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.ENOLCK)
"""How file systems say that they lack hard links or locks, rather than refuse them this once."""


def open_new(path: Path) -> BinaryIO:
    """Open a new file. Its folder is made, and made again when a deletion elsewhere has just pruned it."""
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


def link_new(source: Path | str, target: Path | str, folder: int | None = None) -> None:
    """Give a file a second, unused name, both relative to `folder`, a handle. FileExistsError for the loser.

    StorageError where the file system cannot do that.
    """
    try:
        os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        found = f"its file system has no hard links ({error.strerror}), and a run commits by them"
        do = "keep runs on one that has: ext4, XFS, NFS, Lustre, GPFS, CephFS, BeeGFS; or on S3"
        raise StorageError(f"link {source} as {target}", found, do) from error


def link_over(source: Path, target: Path, name: str) -> bool:
    """Give a file a second name, used or not, by way of the temporary `name` beside it.

    False where that cannot be done: another disk, another user's file, no hard links.
    """
    temporary = target.with_name(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(os.path.realpath(source), temporary)  # of a symbolic link, what it points to
        os.replace(temporary, target)  # leaves both names where they are one file already
    except OSError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return True


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a name in a folder is one itself, or leads to one; one that leads nowhere or in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def flock(file: IO[Any], how: int = fcntl.LOCK_EX) -> None:
    """Lock a file among the processes of this machine. BlockingIOError with LOCK_NB where another holds it.

    StorageError where the file system cannot do that.
    """
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        found = f"its file system gives no locks ({error.strerror})"
        do = "set TMPDIR to a local disk; Lustre gives locks when it is mounted with `flock`"
        raise StorageError(f"lock {file.name}", found, do) from error


def state_of(file: os.stat_result) -> str:
    """Make a token that is another one once the file was written to or replaced."""
    return f"{file.st_ino}-{file.st_size}-{file.st_mtime_ns}"


def walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Entry]:
    """Yield every visible file below `folder`. Links are followed, except back into a folder above.

    A file that was swapped has no state: its newest generation may be ahead of what its name shows.
    """
    try:
        entries = list(os.scandir(folder))
        here = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # it was never there, or was removed while we listed
    inside = (*above, (here.st_dev, here.st_ino))
    swapped = {entry.name.removeprefix(LOCK) for entry in entries if entry.name.startswith(LOCK)}
    for entry in entries:
        if entry.name.startswith(HIDDEN):
            continue
        try:
            facts = entry.stat()
        except FileNotFoundError:
            continue
        if not entry.is_dir():
            state = None if entry.name in swapped else state_of(facts)
            yield Entry(prefix + entry.name, facts.st_size, state=state)
        elif (facts.st_dev, facts.st_ino) not in inside:
            yield from walk(folder / entry.name, f"{prefix}{entry.name}/", inside)
