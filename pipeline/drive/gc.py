"""Remove from a run what neither a record nor a possible resume names. The only deleter besides a stage's `keep`.

Holds the run's lease for as long as it deletes; `pipeline.store.garbage` says what may go.
"""

from dataclasses import dataclass

from vitpipe.infra.lease_state import CLOCK, TIMING, Clock, Timing
from vitpipe.pipeline.drive.lease import hold
from vitpipe.pipeline.store.attempts import HEADER
from vitpipe.pipeline.store.contents import open_run
from vitpipe.pipeline.store.garbage import Garbage, garbage

ABANDONED_S = 3600.0
"""Unfinished uploads of this age have no writer any more."""


@dataclass(frozen=True)
class Removed:
    """What `gc` did, or would have done."""

    garbage: tuple[Garbage, ...]
    unfinished_writes: int = 0
    """Temporary files and uploads in parts that no listing shows."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The removed files, relative to the run's folder."""
        return tuple(one.path for one in self.garbage)

    @property
    def bytes(self) -> int:
        """Bytes of the removed files together."""
        return sum(one.bytes for one in self.garbage)


def gc(
    run_uri: str, unfinished: bool = False, timing: Timing = TIMING, clock: Clock = CLOCK, dry_run: bool = False
) -> Removed:
    """Take the run's lease and remove its garbage; with `unfinished`, also what a resume might have gone on from.

    Everything is read before anything is removed. With `dry_run` nothing is removed, and the lease is neither taken nor
    read. Errors: UsageError for an unknown run; LeaseLost when a driver is alive or takes over; IntegrityError when a
    record or an attempt cannot be read, a file that a record names is missing or of another size, or a record is not
    the one that another node took; StorageError.
    """
    run = open_run(run_uri, "collect the garbage of")
    if dry_run:
        return Removed(garbage(run, unfinished))
    with hold(run, timing=timing, clock=clock) as lease:
        found = garbage(run, unfinished)
        headers = {one.path for one in found if one.path.endswith(f"/{HEADER}")}
        run.delete_all([one.path for one in found if one.path not in headers], lease.check)
        run.delete_all(sorted(headers), lease.check)  # pieces without their header would count as damage
        lease.check()
        return Removed(found, run.sweep(ABANDONED_S))
