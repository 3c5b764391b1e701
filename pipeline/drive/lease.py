"""One writer per run: take `lease.json`, keep it by a heartbeat, give it up; and the right to commit that it gives.

Knows the lease's rules (docs/design.md) and nothing of what its holder does meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from vitpipe.infra import lease_state
from vitpipe.infra.errors import (
    AlreadyExists,
    Changed,
    LeaseLost,
    NotFound,
    Refused,
    Stopped,
    StorageError,
    VitpipeError,
)
from vitpipe.infra.event_batches import begin_anew
from vitpipe.infra.events import StoreEvents
from vitpipe.infra.fence import StoreFence, lease_lost
from vitpipe.infra.lease_state import CLOCK, LEASE, TIMING, Clock, Holder, LeaseState, Timing
from vitpipe.infra.storage import conditions
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.places import is_local
from vitpipe.pipeline.store.contents import highest_fence

log = logging.getLogger(__name__)

Tell = Callable[[VitpipeError], None]
"""Called once with LeaseLost, and once with Stopped when somebody asks us to end; with Refused when the store begins to
turn our beats away, and with StorageError once it did so for `refused_s`. From the heartbeat's thread."""

_TRIES = 5


class Lease:
    """A run this process holds. Satisfies `stages.contract.Fence` for the driver; safe to use from several threads."""

    def __init__(self, run: Store, state: LeaseState, version: str, timing: Timing, clock: Clock) -> None:
        assert state.holder is not None
        self.run, self.fence, self.holder = run, state.fence, state.holder
        self.confirmed_at = state.at
        """Boot time just before the write of the last beat that certainly took effect."""
        self._state, self._version, self._timing, self._clock = state, version, timing, clock
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lost: LeaseLost | None = None
        self._stop: str | None = None

    def fence_for_tasks(self) -> StoreFence:
        """Make the same right for ranks and tasks, which read the store themselves."""
        return StoreFence(self.run, self.fence, self.holder.id, self._timing, self._clock)

    def check(self) -> None:
        """Read the lease and return only if it is ours, with a beat confirmed within `commit_s`.

        After a pause it first beats again, which fails if we were overtaken. Errors: LeaseLost; StorageError.
        """
        for _ in range(_TRIES):
            self._ours(lease_state.read_lease(self.run))
            if self._clock.boottime() - self.confirmed_at <= self._timing.commit_s:
                return
            self.renew()
        found = f"each try took longer than {self._timing.commit_s:g} s"
        do = "find out why the store is slow, then run the same command again"
        raise StorageError(f"confirm the lease of {self.run.uri}", found, do)

    def stopping(self) -> str | None:
        """Return why we are asked to end, or None, as of the last beat. LeaseLost when the run is no longer ours."""
        if self._lost:
            raise self._lost
        return self._stop

    def renew(self) -> None:
        """Write the next beat. LeaseLost when another holder is found; a refusal caused by our own id is success."""
        with self._lock:
            for _ in range(_TRIES):
                if self._lost or self._ended.is_set():
                    raise self._lost or lease_lost(self.run, f"we gave it up under fence {self.fence}")
                now = self._clock.boottime()
                wanted = replace(self._state, beat=self._state.beat + 1, at=now, time=time.time())
                if self._swap(wanted):
                    self.confirmed_at = now
                    return
        raise StorageError(f"renew the lease of {self.run.uri}", f"refused {_TRIES} times although it is ours")

    def request_stop(self, reason: str) -> None:
        """Ask our ranks and tasks, wherever they run, to end."""
        self._stop = reason
        lease_state.write_stop(self.run, self.fence, reason)

    def keep(self, tell: Tell) -> threading.Thread:
        """Beat in the background until the lease is lost or ended."""
        thread = threading.Thread(target=self._beat, args=(tell,), name="vitpipe-lease", daemon=True)
        thread.start()
        return thread

    def end(self) -> None:
        """Give the run up; the fence number stays. Another's lease is left alone."""
        self._ended.set()
        with self._lock:
            if self._lost:
                return
            try:
                for _ in range(_TRIES):
                    if self._swap(replace(self._state, beat=self._state.beat + 1, holder=None)):
                        return
            except (LeaseLost, StorageError) as error:
                log.warning("the lease was not given back, who comes next waits for it: %s", error)

    def _beat(self, tell: Tell) -> None:
        pause = self._timing.renew_s
        refused_at: float | None = None
        while not self._ended.wait(pause):
            pause = self._timing.renew_s
            try:
                self.renew()
                asked = self._stop is None and lease_state.read_stop(self.run, self.fence)
                refused_at = None
            except LeaseLost as error:
                if not self._ended.is_set():
                    tell(error)
                return
            except VitpipeError as error:
                log.warning("the lease could not be renewed, trying again: %s", error)
                pause = self._timing.look_s
                if not isinstance(error, Refused):
                    continue
                if refused_at is None:
                    refused_at = self._clock.monotonic()
                    tell(error)
                elif self._clock.monotonic() - refused_at > self._timing.refused_s:
                    tell(self._given_up(error))
                    return
                continue
            if asked:
                self._stop = asked
                tell(Stopped(f"run {self.run.uri}", asked, "run the same command again to go on"))

    def _given_up(self, error: Refused) -> StorageError:
        found = f"the store has refused its driver for {self._timing.refused_s:g} s: {error.found}"
        do = "mend that, then run the same command again: it goes on from the last commit"
        return StorageError(f"go on with {self.run.uri}", found, do)

    def _swap(self, wanted: LeaseState) -> bool:
        """Swap `wanted` in; whether it is in the store now. When not, what is there is ours, and is our state now."""
        try:
            self._version = self.run.swap(LEASE, wanted.encode(), self._version)
        except Changed:
            found, version = _read(self.run)
            if found != wanted:
                self._state = self._ours(found)  # before the version: by that of another's we would overwrite it
                self._version = version
                return False
            self._version = version
        self._state = wanted
        return True

    def _ours(self, state: LeaseState | None) -> LeaseState:
        """Return the state if it is ours. LeaseLost, from now on at each call, if it is not."""
        if self._lost is None and (state is None or not state.held_by(self.fence, self.holder.id)):
            found = f"{state.holder or 'nobody'} holds it under fence {state.fence}" if state else "its lease is gone"
            self._lost = lease_lost(self.run, f"we held fence {self.fence}, now {found}")
        if self._lost or state is None:
            raise self._lost or lease_lost(self.run, "its lease is gone")
        return state


@contextmanager
def hold(run: Store, tell: Tell | None = None, timing: Timing = TIMING, clock: Clock = CLOCK) -> Iterator[Lease]:
    """Take the run in that folder, keep it while the block lasts, give it up.

    Errors: LeaseLost when another driver is alive (known within `watch_s`); StorageError, also for a bucket whose
    server ignores the conditions of writes.
    """
    if not is_local(run.uri):
        conditions.require(run)
    lease = acquire(run, timing, clock)
    lease.keep(tell or (lambda error: log.warning("%s", error)))
    try:
        yield lease
    finally:
        lease.end()


def acquire(run: Store, timing: Timing = TIMING, clock: Clock = CLOCK) -> Lease:
    """Take the lease under the next fence number, after watching a holder that may be alive. Errors as `hold`."""
    me = Holder.me()
    overtaken: Holder | None = None
    watched: LeaseState | None = None
    while True:
        found, version = _read(run)
        if found and watched and found.moved(watched):
            raise _alive(run, found)  # only our swap saw it beat: an NFS client may show a state that is a minute old
        if found is None or not found.held_by(found.fence, me.id):
            overtaken = found.holder if found else None
            if found and overtaken and not _silent(run, found, timing, clock):
                continue  # it was given up meanwhile
            fence = 1 + (found.fence if found else highest_fence(run))
            state = LeaseState(fence, 0, me, lease_state.clock_id(), clock.boottime(), time.time())
            try:
                version = run.swap(LEASE, state.encode(), version) if found else run.create(LEASE, state.encode())
            except (AlreadyExists, Changed):
                watched = found
                continue  # another was quicker, or it was us and the answer was lost
            found = state
            begin_anew(run)
        if overtaken:
            text = f"took the run over from {overtaken}, dead or silent under fence {found.fence - 1}"
            StoreEvents(run, found.fence).emit("takeover", text)
        return Lease(run, found, version, timing, clock)


def _silent(run: Store, first: LeaseState, timing: Timing, clock: Clock) -> bool:
    """Watch a held lease: True when it is silent or its holder dead, False when given up; LeaseLost when it beats."""
    began = clock.monotonic()
    while not (first.holder and first.holder.provably_dead()):
        clock.sleep(timing.look_s)
        now = clock.monotonic()
        state, _ = _read(run)
        if state is None or state.holder is None:
            return False
        if state != first:
            raise _alive(run, state)
        if now - began >= timing.watch_s:
            return True
    return True


def _alive(run: Store, state: LeaseState) -> LeaseLost:
    found = f"{state.holder} holds it under fence {state.fence} and is alive"
    return LeaseLost(f"run {run.uri}", found, "wait for it to end, or end it with `vitpipe stop`")


def _read(run: Store) -> tuple[LeaseState | None, str]:
    try:
        data, version = run.read_version(LEASE)
    except NotFound:
        return None, ""
    return LeaseState.decode(data, run.uri), version
