"""Which names inside a store are allowed: relative, `/`-separated, never leaving the root; and names of buckets.

Knows nothing of any kind of store.
"""

import re

from vitpipe.infra.errors import UsageError

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")

HIDDEN = ".vitpipe-"
"""Names that begin so are a store's own (temporary files, locks): never listed, never given by a caller."""

LOCK = HIDDEN + "lock-"
"""Begins the name of the folder beside a file that holds its generations.

Earlier versions keep a lock file of that name: a folder makes their swaps fail rather than miss ours.
"""

MAX_NAME_BYTES = 1024
"""The longest key S3 takes; kept on every store so that a run may move."""


def checked(path: str) -> str:
    """Return the path. UsageError when it is empty, absolute, too long, or has a part that is not a plain name."""
    parts = path.split("/")
    _refuse(path, parts)
    if not all(parts):
        raise _bad(path, "it is absolute or has an empty part")
    if parts[-1].startswith(HIDDEN):
        raise _bad(path, f"names that begin with {HIDDEN} are the store's own")
    return path


def checked_prefix(prefix: str) -> str:
    """Return a plain string prefix of paths, whose last part may be cut or empty. UsageError as `checked`."""
    parts = prefix.split("/")
    _refuse(prefix, parts)
    if not all(parts[:-1]):
        raise _bad(prefix, "it is absolute or has an empty part")
    return prefix


def _refuse(path: str, parts: list[str]) -> None:
    if ".." in parts or "." in parts[:-1] or path == ".":
        raise _bad(path, "it has a part `.` or `..`")
    if "\0" in path:
        raise _bad(path, "it has a NUL character")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise _bad(path, "it is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise _bad(path[:80] + "...", f"it has {size} bytes, the most is {MAX_NAME_BYTES}")


def _bad(path: str, why: str) -> UsageError:
    return UsageError(f"use {path!r} as a name in the store", why, "give a relative path with `/` between plain names")
