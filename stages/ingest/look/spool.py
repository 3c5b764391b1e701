"""Bytes that were costly to make, kept between the first look and the writing. No torch.

Only a shortcut: who finds nothing, or something else than the digest says, makes them again.
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from vitpipe.infra.errors import NotFound
from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.parts.made import FOLDER

STORED = f"{FOLDER}/spool"
_STORED = re.compile(rf"[^/]+/{STORED}/(\d+)\.spool")
Place = tuple[int, int]
"""Chunk, and offset in what the chunk kept."""


@dataclass(frozen=True)
class Spool:
    """One file for each chunk of images, on this machine's disk or in the store.

    In the store where an image alone costs as much as all that stand beside it: a shard takes its images from
    everywhere, on any machine, and after a restart too.
    """

    folder: Path
    """On this machine's disk."""
    out: Out | None = None
    """Where all machines find them, and later attempts."""

    @contextmanager
    def keeping(self, chunk: int) -> Iterator[IO[bytes]]:
        """A file for what the chunk's images take, end to end; it is found once it is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / secrets.token_hex(8)
        try:
            with temporary.open("wb") as file:
                yield file
            if self.out is None:
                os.replace(temporary, self._path(chunk))
            else:
                self.out.upload(temporary, _name(chunk))
        finally:
            temporary.unlink(missing_ok=True)

    def holds(self, place: Place) -> bool:
        """Whether the chunk is there."""
        return self._path(place[0]).is_file() if self.out is None else place[0] in self._attempts

    def find(self, place: Place, size: int) -> bytes | None:
        """What stands at a place, or None when the chunk is not there."""
        chunk, offset = place
        try:
            if self.out is not None:
                attempt = self._attempts.get(chunk)
                return self.out.node.read(f"{attempt}/{_name(chunk)}", offset, size) if attempt else None
            with self._path(chunk).open("rb") as file:
                return os.pread(file.fileno(), size, offset)
        except (FileNotFoundError, NotFound):
            return None

    @property
    def is_remote(self) -> bool:
        """Whether to find something is a question to a server."""
        return self.out is not None and not self.out.node.uri.startswith("file://")

    def clear(self) -> None:
        """Remove from the store what this attempt and earlier ones kept: the shards stand, nobody asks again."""
        if self.out is not None:
            for attempt in (self.out.attempt, *self.out.earlier):
                self.out.node.delete_all([entry.path for entry in self.out.node.list(f"{attempt}/{STORED}/")])

    @cached_property
    def _attempts(self) -> Mapping[int, str]:
        """The newest attempt that keeps each chunk."""
        assert self.out is not None
        found: dict[int, str] = {}
        for attempt in (self.out.attempt, *self.out.earlier):
            for entry in self.out.node.list(f"{attempt}/{STORED}/"):
                if match := _STORED.fullmatch(entry.path):
                    found.setdefault(int(match[1]), attempt)
        return found

    def _path(self, chunk: int) -> Path:
        return self.folder / f"{chunk:06d}.spool"


def _name(chunk: int) -> str:
    return f"{STORED}/{chunk:06d}.spool"
