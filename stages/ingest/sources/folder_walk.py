"""All files below a folder, local or on S3, by name; and what of it is no part of anybody's data. No torch.

Knows names and links, not what a name means to a source. Opens no file.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from vitpipe.infra.storage.store import Entry
from vitpipe.stages.ingest.sources.folder_layout import IMAGE_SUFFIXES, suffix_of
from vitpipe.stages.sighting import etag_mark, time_mark

MOST_NAMED = 8
"""Names of what is left aside that a person is told."""
LITTER = (
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@sharebin", "__macosx", "__pycache__",
    "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini",
)  # fmt: skip
"""What file servers, archivers and desktops leave beside people's files, thumbnails among it; in lower case."""

Refuse = Callable[[str, OSError], None]
"""Told what cannot be listed, by its name with a slash; may raise."""


class FoundFile(NamedTuple):
    """One file below the root."""

    name: str
    size: int
    mark: int = 0
    """When it was written: another after it was replaced."""
    fault: str = ""
    """Why its bytes are not to be had."""

    @property
    def is_candidate(self) -> bool:
        """Whether its name ends like an image's."""
        return suffix_of(self.name) in IMAGE_SUFFIXES


@dataclass
class LeftAside:
    """Files and folders that are no part of the data, counted by what they are called."""

    counts: Counter[str] = field(default_factory=Counter)

    def takes(self, name: str) -> bool:
        """Whether a file or folder of this name is one, which is then counted."""
        if not is_aside(name):
            return False
        self.counts["._*" if name.startswith("._") else name] += 1
        return True

    def notes(self) -> Iterator[str]:
        """What a person should know of it."""
        if self.counts:
            order = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
            told = ", ".join(f"{count} {name!r}" for name, count in order[:MOST_NAMED])
            told += f" and {len(self.counts) - MOST_NAMED} other names" if len(self.counts) > MOST_NAMED else ""
            yield f"hidden, or left by file servers and desktops, and so left aside: {told}"


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is left by a file server, an archiver or a desktop."""
    return name.startswith("._") or name.casefold() in LITTER


def is_aside(name: str) -> bool:
    """Whether a file or folder of this name is no part of the data: hidden, or litter."""
    return name[:1] == "." or is_litter(name)


def objects(there: Iterable[Entry], aside: LeftAside) -> Iterator[FoundFile]:
    """Those of a listing, which is sorted by name, that are no litter; of a folder of litter all at once."""

    def litter(entry: Entry) -> tuple[str, ...]:
        parts = entry.path.split("/")
        at = next((at for at, part in enumerate(parts) if is_aside(part)), None)
        return () if at is None else tuple(parts[: at + 1])

    for folder, entries in groupby(there, litter):
        if folder:
            aside.takes(folder[-1])
        else:
            yield from (FoundFile(entry.path, entry.bytes, etag_mark(entry.version)) for entry in entries)


def files_below(
    folder: Path, refuse: Refuse, aside: LeftAside, prefix: str = "", above: tuple[str, ...] = ()
) -> Iterator[FoundFile]:
    """All files below by name; linked folders are followed, but not back into themselves. A link to nothing is one."""
    above = above or (os.path.realpath(folder),)
    named: list[tuple[str, os.DirEntry[str]]] = []
    try:
        with os.scandir(folder) as entries:
            there = [one for one in entries if not aside.takes(one.name)]
    except OSError as error:
        refuse(prefix, error)
        return
    for one in there:
        try:
            named.append((f"{one.name}/" if _is(one.is_dir) else one.name, one))
        except OSError as error:  # a link to where one may not look
            refuse(f"{prefix}{one.name}/", error)
    for name, entry in sorted(named, key=itemgetter(0)):
        if not name.endswith("/"):
            if _is(entry.is_file):
                state = entry.stat()
                yield FoundFile(prefix + name, state.st_size, time_mark(state))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                yield FoundFile(prefix + name, 0, fault=f"a link to nothing: {os.readlink(entry.path)!r} is not there")
        elif (real := os.path.realpath(entry.path)) not in above:
            yield from files_below(Path(entry.path), refuse, aside, prefix + name, (*above, real))


def folders_at(root: Path, depth: int) -> Iterator[tuple[str, ...]]:
    """Folders exactly `depth` levels below the root, those left aside not among them."""
    for entry in os.scandir(root):
        if _is(entry.is_dir) and not is_aside(entry.name):
            if depth == 1:
                yield (entry.name,)
            else:
                yield from ((entry.name, *rest) for rest in folders_at(Path(entry.path), depth - 1))


def _is(kind: Callable[[], bool]) -> bool:
    """What `kind` says; a link that goes round in a circle leads to nothing, as one that dangles."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
