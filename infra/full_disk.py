"""Which disk is full: an OSError names a path where a file was opened, and none where it was written to.

Knows no stage and no store.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TIGHT_BYTES = 1 << 20
"""A file system with less room than this counts as full: what was refused may have been larger than a block."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")


def is_full(error: BaseException) -> bool:
    """Whether an error, or a cause of it, means a full disk or a spent quota, which libraries in Rust and C++ only say
    in words."""
    return any(_says_full(one) for one in _causes(error))


def full_path(error: BaseException, *candidates: str | Path) -> str:
    """Find the path that has no room: the one that the error or a cause of it names, else the first of `candidates`
    and of this process's own places whose file system is full; all of them where room was made meanwhile."""
    for one in _causes(error):
        if isinstance(one, OSError) and one.filename is not None and _says_full(one):
            return os.fsdecode(one.filename)
    places = dict.fromkeys(str(place) for place in (*candidates, *_own_places()))
    return next((place for place in places if _is_tight(place)), " or ".join(places))


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return type(error).__name__ == "OutOfDiskError" or any(words in str(error) for words in _WORDS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _own_places() -> Iterator[str]:
    """Yield where this process writes without being given a path: its output files, then its default folders."""
    for number in (1, 2):
        with suppress(OSError):
            behind = os.readlink(f"/proc/self/fd/{number}")
            if os.path.isfile(behind):
                yield behind
    yield from (os.environ.get("TMPDIR") or tempfile.gettempdir(), os.getcwd(), os.path.expanduser("~"))


def _is_tight(place: str) -> bool:
    path = Path(place)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        room = os.statvfs(path)
    except OSError:
        return False
    blocks = room.f_bfree if os.geteuid() == 0 else room.f_bavail
    return blocks * room.f_frsize < TIGHT_BYTES or (room.f_files > 0 and room.f_favail == 0)
