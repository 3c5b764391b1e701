"""Whether a run's driver is alive, as seen from any machine, without comparing two machines' clocks.

Where the lease was written by this machine's own boot clock, its age is known; elsewhere it is watched for a beat.
"""

from dataclasses import dataclass

from vitpipe.infra.lease_state import CLOCK, Clock, LeaseState, clock_id, read_lease
from vitpipe.infra.storage.store import Store

SILENT_S = 30.0
"""Seen from its own machine, a holder that has not beaten for so long counts as dead."""
LOOKED_S = 15.0
"""Seen from elsewhere, so does one that does not beat while it is watched for so long: three beats."""


@dataclass(frozen=True)
class Sign:
    """What is known of a run's holder."""

    lease: LeaseState | None
    alive: bool
    silence: str = ""
    """What to say of a silent holder: `is dead`, `gave no sign of life for 15 s`."""


class Pulse:
    """Looks at one run's lease, once or repeatedly, and remembers what it saw before."""

    def __init__(self, run: Store, patient: bool = True, clock: Clock = CLOCK) -> None:
        """A `patient` look waits for a beat where it must; in another the holder is alive until watched in vain."""
        self._run, self._patient, self._clock = run, patient, clock
        self._last: LeaseState | None = None
        self._changed_at = 0.0
        self._moved = False

    def look(self) -> Sign:
        """Look now; a patient look waits up to `LOOKED_S` for a beat, where the state is not known at once."""
        while True:
            lease = read_lease(self._run)
            if lease is None or lease.holder is None:
                return Sign(lease, False)
            if lease.holder.provably_dead():
                return Sign(lease, False, "is dead")
            if lease.clock == clock_id():
                age_s = self._clock.boottime() - lease.at
                return Sign(lease, age_s < SILENT_S, f"was last heard of {age_s:.0f} s ago")
            watched_s = self._watched_s(lease)
            if watched_s >= LOOKED_S:
                return Sign(lease, False, f"gave no sign of life for {watched_s:.0f} s")
            if self._moved or not self._patient:
                return Sign(lease, True)
            self._clock.sleep(1.0)

    def _watched_s(self, lease: LeaseState) -> float:
        """Count the seconds since this very beat was first seen."""
        now = self._clock.monotonic()
        if lease != self._last:
            self._moved = self._last is not None and lease.moved(self._last)
            self._last, self._changed_at = lease, now
        return now - self._changed_at
