"""What must outlive the process that leads a gang: how often the gang started and failed, and its ranks' processes.

A file of fixed size on the driver's machine, where Ray Train's controller runs too; overwritten in place, so that a
full disk cannot keep it from being written. Knows no Ray.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitpipe.infra.lease_state import Holder

_SIZE_BYTES = 2**20
"""Room for the ranks of some thousand GPUs."""


@dataclass(frozen=True)
class Process:
    """A process of a rank, wherever it runs."""

    node: str
    """Ray's id of its machine."""
    who: Holder


@dataclass(frozen=True)
class GangState:
    """What happened to one gang under one driver, whichever controllers led it."""

    starts: int = 0
    """How often it was started: the next start has this number, and its attempt a name that no other had."""
    failures: int = 0
    """How many failures were charged to `max_failures`."""
    reasons: tuple[str, ...] = ()
    """Reasons of the last failure, as far as they would come again."""
    ranks: tuple[Process, ...] = ()
    """Processes of the last start."""
    places: str = ""
    """Ray's id of the placement group that they are in."""


@dataclass(frozen=True)
class GangNotes:
    """A gang's file of notes: its leader writes it, and the driver reads it when the leader is lost. Picklable."""

    path: Path

    def begin(self) -> None:
        """Reserve the room on disk, and note that nothing has happened yet."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _SIZE_BYTES)
        self._write(GangState())

    def read(self) -> GangState:
        """Read the newest note."""
        fields: dict[str, Any] = json.loads(self.path.read_bytes().rstrip(b"\0 "))
        ranks = tuple(Process(one["node"], Holder(**one["who"])) for one in fields["ranks"])
        return GangState(fields["starts"], fields["failures"], tuple(fields["reasons"]), ranks, fields["places"])

    def note(self, **changes: Any) -> GangState:
        """Change some fields of the note; all of them, as they are now."""
        state = GangState(**{**vars(self.read()), **changes})
        self._write(state)
        return state

    def end(self) -> None:
        """Remove the file: the gang has ended."""
        self.path.unlink(missing_ok=True)

    def _write(self, state: GangState) -> None:
        data = json.dumps(asdict(state)).encode()
        if len(data) > _SIZE_BYTES:  # the room was taken for fewer ranks: a disk that is not full has more
            raise ValueError(f"{len(state.ranks)} ranks do not fit into {self.path}")
        with self.path.open("r+b") as file:
            file.write(data.ljust(_SIZE_BYTES))
