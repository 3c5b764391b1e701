"""The right to commit and the wish that we end, asked of the store from whatever process we are in.

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
    """Id of the lease's holder that sent us."""
    timing: Timing = TIMING
    clock: Clock = CLOCK

    def check(self) -> None:
        """Return only if our driver holds the run and a beat of the last `commit_s` is confirmed.

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
                raise _lost(self.run, f"no beat of its lease {self.fence} was seen for {self.timing.watch_s:g} s")
            self.clock.sleep(self.timing.look_s)

    def stopping(self) -> str | None:
        """Why we are asked to end, or None, as of at most `poll_s` ago. Costs nothing.

        LeaseLost when the run is no longer ours.
        """
        watch = self._watch()
        watch.keep_polling()
        if watch.lost:
            raise _lost(self.run, watch.lost)
        return watch.stop

    def _watch(self) -> "Watch":
        key = (self.run.uri, self.fence, self.holder)
        with _registry:
            if key not in _watches:
                _watches[key] = Watch(self)
            return _watches[key]


class Watch:
    """What this process has seen of one lease; one per process, however many fences were unpickled in it."""

    def __init__(self, fence: StoreFence) -> None:
        self.of, self.run, self.clock, self.timing = fence, fence.run, fence.clock, fence.timing
        self.lost: str | None = None
        self.stop: str | None = None
        self.confirmed_at = float("-inf")
        """Boot time of this machine at which the lease was certainly ours."""
        self._beat: int | None = None
        self._looked_at = float("-inf")
        self._reading = threading.Lock()
        self._asked_at = float("-inf")
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Read the lease now. LeaseLost when it is not ours.

        A beat that differs from the last one seen was written after that last look: the lease was ours then. The
        holder's own time counts where we share its clock.
        """
        with self._reading:
            now = self.clock.boottime()
            state = read_lease(self.run)
            if state is None or not state.held_by(self.of.fence, self.of.holder):
                self.lost = f"{state.holder} holds it under fence {state.fence}" if state else "its lease is gone"
                if state and state.holder is None:
                    self.lost = f"our driver gave it up (fence {self.of.fence}, now {state.fence})"
                raise _lost(self.run, self.lost)
            if self._beat is not None and state.beat > self._beat:  # fewer: a listing that is older than the last
                self.confirmed_at = max(self.confirmed_at, self._looked_at)
            if state.clock == clock_id():
                self.confirmed_at = max(self.confirmed_at, state.at)
            self._beat, self._looked_at = state.beat, now

    def look_for_stop(self) -> None:
        self.stop = self.stop or read_stop(self.run, self.of.fence)

    def keep_polling(self) -> None:
        """Have the thread run until nobody asked for `idle_s`."""
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
                return  # `lost` says it to whoever asks next
            except (StorageError, IntegrityError) as error:
                log.warning("the lease could not be read, trying again: %s", error)
            pause.wait(self.timing.poll_s)


def _lost(run: Store, found: str) -> LeaseLost:
    return LeaseLost(f"go on with {run.uri}", found, "this driver commits nothing more; look with `vitpipe status`")


_registry = threading.Lock()
_watches: dict[tuple[str, int, str], Watch] = {}


def _forget() -> None:
    """A forked child has no thread of its parent's, and perhaps a lock that nobody will open: it begins anew."""
    global _registry
    _registry = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_forget)
