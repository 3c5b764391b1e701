"""That a run was handed to a cluster: `submitted.json`, left by `submit`, for as long as no driver has begun since.

It makes no run of a folder and is nobody's data. Whether a driver has begun is told by the lease's fence, by no clock.
"""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vitpipe.infra.errors import IntegrityError, NotFound
from vitpipe.infra.json_object import fields_of, parse_object
from vitpipe.infra.lease_state import LeaseState, read_lease
from vitpipe.infra.storage.store import Store

SUBMITTED = "submitted.json"
LAST_S = 2.5e11
"""Seconds of the epoch that no calendar of Python's reaches."""


@dataclass(frozen=True)
class Submission:
    """What `submit` left."""

    job: str
    address: str
    """Of the cluster's jobs, without credentials."""
    by: str
    time: float
    """Seconds of the epoch by the clock of whoever submitted: for people only."""
    after_fence: int
    """The run's fence before; a driver that begins takes a higher one."""
    nodes: tuple[str, ...]

    @property
    def since(self) -> str:
        """When it was submitted, in UTC."""
        return datetime.fromtimestamp(self.time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def __str__(self) -> str:
        return f"submitted {self.since} by {self.by} as job {self.job} at {self.address}, not yet begun"

    def to_json(self) -> dict[str, Any]:
        """What `status --json` says of it."""
        return {"job": self.job, "address": self.address, "by": self.by, "since": self.since}

    def awaits(self, lease: LeaseState | None) -> bool:
        """Whether no driver has taken the run since."""
        return (lease.fence if lease else 0) <= self.after_fence


def leave(run: Store, job: str, address: str, by: str, nodes: tuple[str, ...]) -> None:
    """Leave word of a submission; a later one of the same run takes its place. StorageError."""
    try:
        lease = read_lease(run)
    except IntegrityError:
        lease = None  # whoever begins says what is wrong with it
    made = Submission(job, address, by, time.time(), lease.fence if lease else 0, nodes)
    run.write(SUBMITTED, json.dumps(asdict(made), indent=1).encode())


def read_submission(run: Store) -> Submission | None:
    """Read what was left; None where there is nothing. IntegrityError for what vitpipe did not write."""
    with suppress(NotFound), fields_of(f"{run.uri}/{SUBMITTED}", "submit the run again, which writes it anew"):
        fields = parse_object(run.read(SUBMITTED))
        job, address, by = (str(fields[name]) for name in ("job", "address", "by"))
        made = Submission(
            job, address, by, float(fields["time"]), int(fields["after_fence"]), tuple(map(str, fields["nodes"]))
        )
        if not 0 <= made.time < LAST_S:
            raise ValueError(f"{made.time} is no moment")
        return made
    return None
