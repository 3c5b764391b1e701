"""What file system a folder is on, and which of its mount options matter to a run. Reads `/proc/self/mountinfo`.

Knows nothing of stores; what can be tried is better tried than concluded from a name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
LONG_CACHE_S = 20
"""An attribute cache as old as a newcomer's watch over a lease."""


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo, proc(5)."""

    point: Path
    kind: str
    """The file system's type: `ext4`, `nfs4`, `lustre`, `fuse.sshfs`."""
    options: frozenset[str]
    """Options of the mount and of its file system: `ro`, `nolock`, `acregmax=60`."""

    def number(self, option: str) -> int | None:
        """The value of `option=value`, or None."""
        found = [one.partition("=")[2] for one in self.options if one.startswith(f"{option}=")]
        return int(found[0]) if found and found[0].isdecimal() else None


def mount_of(folder: Path, mountinfo: Path = MOUNTINFO) -> Mount | None:
    """Find the mount that a folder, or the nearest one above it that exists, is on; None where the system hides it."""
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    here = folder.resolve()
    over = [mount for line in lines if (mount := _parsed(line)) and here.is_relative_to(mount.point)]
    deepest = max((len(mount.point.parts) for mount in over), default=0)
    return next((mount for mount in reversed(over) if len(mount.point.parts) == deepest), None)  # the last covers


def remarks(mount: Mount) -> Iterator[str]:
    """Yield what these options mean to a run whose store is there, each beginning with the option's name."""
    options, kind = mount.options, mount.kind
    if kind == "lustre":
        if "localflock" in options:
            yield "localflock: locks hold on one machine alone; commits need none, but keep TMPDIR on a local disk"
        elif "flock" not in options:
            yield "no flock: there are no locks; commits need none, but keep TMPDIR on a local disk"
    if kind in ("nfs", "nfs4"):
        if "nolock" in options or options & {"local_lock=all", "local_lock=flock"}:
            name = "nolock" if "nolock" in options else "local_lock"
            yield f"{name}: locks hold on one machine alone; commits need none, but keep TMPDIR on a local disk"
        yield from _caching(mount)
    if kind == "fuse" or kind.startswith("fuse."):
        yield f"FUSE ({kind}): whether machines see each other's files at once is up to its program"


def _caching(mount: Mount) -> Iterator[str]:
    """Yield how stale a view may be. NFS by default keeps files' attributes for 3 to 60 s, folders' for 30 to 60 s."""
    if "noac" in mount.options:
        return
    every = mount.number("actimeo")
    limits = {name: mount.number(name) if every is None else every for name in ("acregmax", "acdirmax")}
    long = {name: 60 if limit is None else limit for name, limit in limits.items()}
    if max(long.values()) >= LONG_CACHE_S:
        said = ", ".join(f"{name} {limit} s" for name, limit in long.items())
        yield f"{said}: what others do is seen that much later; `actimeo=5` shows it within a beat of the lease"


def _parsed(line: str) -> Mount | None:
    before, dash, after = line.partition(" - ")
    mine, its = before.split(" "), after.split(" ")
    if not dash or len(mine) < 6 or len(its) < 2:
        return None
    options = frozenset(mine[5].split(",")) | frozenset(its[2].split(",") if len(its) > 2 else ())
    return Mount(Path(_plain(mine[4])), its[0], options)


def _plain(escaped: str) -> str:
    r"""Undo the escapes of blanks, tabs, newlines and backslashes, `\040` and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped)
