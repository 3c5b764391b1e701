"""The right to commit, and requests to stop, as any process of a run reads them from the store.

Knows `lease.json` and `stop.json` of a run's folder, and nothing of what is committed below it.
"""

import logging
import os
import threading
from dataclasses import dataclass

from vitpipe.infra.errors import IntegrityError, LeaseLost, StorageError
from vitpipe.infra.lease_state import CLOCK, TIMING, Clock, Timing, clock_id, read_lease, read_stop
from vitpipe.infra.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreFence:
    """Satisfies `stages.contract.Fence` for ranks, tasks and driver threads alike. Picklable."""

    run: Store
    """The run's folder."""
    fence: int
    holder: str
    """Id of the lease's holder: the driver that this process works for."""
    timing: Timing = TIMING
    clock: Clock = CLOCK

    def check(self) -> None:
        """Return only if our driver holds the run and a beat within the last `commit_s` is confirmed.

        A process that has not watched yet may wait for one beat. Errors: LeaseLost; StorageError when the store
        does not answer.
        """
        watch = self._watch()
        began = self.clock.boottime()
        while True:
            watch.look()
            if self.clock.boottime() - watch.confirmed_at <= self.timing.commit_s:
                return
            if self.clock.boottime() - began > self.timing.watch_s:
                raise lease_lost(self.run, f"no beat of its lease {self.fence} was seen for {self.timing.watch_s:g} s")
            self.clock.sleep(self.timing.look_s)

    def stopping(self) -> str | None:
        """Return why this work is asked to end, or None; at most `poll_s` old, and free of charge.

        LeaseLost when the run is no longer ours.
        """
        watch = self._watch()
        watch.keep_polling()
        if watch.lost:
            raise lease_lost(self.run, watch.lost)
        return watch.stop

    def _watch(self) -> "LeaseWatch":
        key = (self.run.uri, self.fence, self.holder)
        with _registry:
            if key not in _watches:
                _watches[key] = LeaseWatch(self)
            return _watches[key]


class LeaseWatch:
    """What this process has seen of one lease: a single watch, however many copies of the fence were unpickled here."""

    def __init__(self, fence: StoreFence) -> None:
        self.fence, self.run, self.clock, self.timing = fence, fence.run, fence.clock, fence.timing
        self.lost: str | None = None
        self.stop: str | None = None
        self.confirmed_at = float("-inf")
        """The last reading of this machine's boot clock at which the lease was certainly ours."""
        self._beat: int | None = None
        self._looked_at = float("-inf")
        self._reading = threading.Lock()
        self._asked_at = float("-inf")
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Read the lease now. LeaseLost when it is not ours.

        A higher beat than the one seen last was written after that look, so at that time the lease was ours. On the
        holder's own machine the time of its writing counts.
        """
        with self._reading:
            now = self.clock.boottime()
            state = read_lease(self.run)
            if state is None or not state.held_by(self.fence.fence, self.fence.holder):
                self.lost = f"{state.holder} holds it under fence {state.fence}" if state else "its lease is gone"
                if state and state.holder is None:
                    self.lost = f"our driver gave it up (fence {self.fence.fence}, now {state.fence})"
                raise lease_lost(self.run, self.lost)
            if self._beat is not None and state.beat > self._beat:  # a lower one is an answer from an old cache
                self.confirmed_at = max(self.confirmed_at, self._looked_at)
            if state.clock == clock_id():
                self.confirmed_at = max(self.confirmed_at, state.at)
            self._beat, self._looked_at = state.beat, now

    def look_for_stop(self) -> None:
        """Read whether somebody asked this driver to stop; once asked, it stays so."""
        self.stop = self.stop or read_stop(self.run, self.fence.fence)

    def keep_polling(self) -> None:
        """Keep the polling thread alive until nobody has asked for `idle_s`."""
        self._asked_at = self.clock.boottime()
        if self._thread is None or not self._thread.is_alive():
            with _registry:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._poll, name="vitpipe-fence", daemon=True)
                    self._thread.start()

    def _poll(self) -> None:
        pause = threading.Event()
        while self.lost is None and self.clock.boottime() - self._asked_at < self.timing.idle_s:
            try:
                self.look()
                self.look_for_stop()
            except LeaseLost:
                return  # whoever asks next reads it from `lost`
            except (StorageError, IntegrityError) as error:
                log.warning("the lease could not be read, trying again: %s", error)
            pause.wait(self.timing.poll_s)


def lease_lost(run: Store, found: str) -> LeaseLost:
    """Make the error of a driver, rank or task that no longer holds `run`."""
    return LeaseLost(f"go on with {run.uri}", found, "this driver commits nothing more; look with `vitpipe status`")


_registry = threading.Lock()
_watches: dict[tuple[str, int, str], LeaseWatch] = {}


def _forget() -> None:
    """Start afresh in a forked child: it lacks the parent's thread, and may inherit a lock that nobody will release."""
    global _registry
    _registry = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_forget)
