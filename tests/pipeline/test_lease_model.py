"""Several drivers, pauses and lost answers, in every order hypothesis can think of: one writer, one result."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fake_clock import FakeClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vitpipe.infra.errors import AlreadyExists, Changed, LeaseLost, NotFound, StorageError
from vitpipe.infra.lease_state import TIMING, read_lease
from vitpipe.infra.storage.store import Entry
from vitpipe.pipeline.drive.lease import Lease, acquire
from vitpipe.pipeline.store.records import Committed, commit, read_committed
from vitpipe.stages.record import Record

FAULTS = st.sampled_from(["fine", "fine", "fine", "lost", "refused twice", "unreachable"])
DRIVERS = st.integers(0, 2)


@dataclass(frozen=True)
class Shaky:
    """One driver's way to the objects that all share. The next conditional write meets the fault that was set."""

    objects: dict[str, bytes]
    fault: list[str] = field(default_factory=list)
    uri: str = "memory://run"

    def read(self, path: str) -> bytes:
        if path not in self.objects:
            raise NotFound(f"read {path}")
        return self.objects[path]

    def read_version(self, path: str) -> tuple[bytes, str]:
        data = self.read(path)
        return data, hashlib.sha256(data).hexdigest()

    def list(self, prefix: str = "") -> list[Entry]:
        return [Entry(path, len(data)) for path, data in sorted(self.objects.items()) if path.startswith(prefix)]

    def write(self, path: str, data: bytes) -> None:
        self.objects[path] = data

    def create(self, path: str, data: bytes) -> str:
        return self._meet(path, data, AlreadyExists, lambda: path not in self.objects)

    def swap(self, path: str, data: bytes, version: str) -> str:
        return self._meet(path, data, Changed, lambda: self.read_version(path)[1] == version)

    def _meet(self, path: str, data: bytes, refusal: type[StorageError], allowed: Callable[[], bool]) -> str:
        fault = self.fault.pop() if self.fault else "fine"
        if fault == "unreachable":
            raise StorageError("write", "503")
        if not allowed():
            raise refusal("write", "412")
        self.objects[path] = data
        if fault == "lost":  # it took effect and the caller never hears of it
            raise StorageError("write", "connection reset")
        if fault == "refused twice":  # ... and the retry is refused by our own write
            raise refusal("write", "412")
        return self.read_version(path)[1]


def result(attempt: str) -> Record:
    return Record(
        node="n", stage="make", fingerprint="f", recipe={}, config={}, inputs={}, output={"kind": "ShardSet"},
        files=(), code="", versions={}, started="now", seconds=1.0, attempt=attempt,
    )  # fmt: skip


class Drivers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        objects: dict[str, bytes] = {}
        self.time = FakeClock()
        self.stores: list[Any] = [Shaky(objects) for _ in range(3)]
        self.held: dict[int, Lease] = {}
        self.passed: dict[int, float] = {}
        """By fence: when its last check passed."""
        self.ended: set[int] = set()
        self.committed: Committed | None = None

    @rule(driver=DRIVERS, fault=FAULTS, others=st.lists(st.tuples(DRIVERS, st.sampled_from(["beat", "end", "check"]))))
    def come(self, driver: int, fault: str, others: list[tuple[int, str]]) -> None:
        """A newcomer, or one that was killed and typed again; the others act while it watches."""
        self.held.pop(driver, None)
        self.time.meanwhile = iter([lambda one=one, act=act: self._act(one, act) for one, act in others])
        before = read_lease(self.root_store)
        self.stores[driver].fault[:] = [fault]
        try:
            lease = acquire(self.stores[driver], clock=self.time.clock)
        except LeaseLost:
            assert others, "nobody moved, and yet it was given up"
            return
        except StorageError:
            return
        finally:
            self.time.meanwhile = iter(())
            self.stores[driver].fault.clear()
        assert lease.fence > (before.fence if before else 0)
        for fence in range(1, lease.fence):
            if fence not in self.ended and fence in self.passed:
                since = lease.confirmed_at - self.passed[fence]
                assert since >= TIMING.watch_s - TIMING.commit_s, "a commit may be under way"
        self.held[driver] = lease

    @rule(driver=DRIVERS, act=st.sampled_from(["beat", "check", "check", "end"]), fault=FAULTS)
    def act(self, driver: int, act: str, fault: str) -> None:
        self.stores[driver].fault[:] = [fault]
        self._act(driver, act)
        self.stores[driver].fault.clear()

    @rule(seconds=st.sampled_from([1, 4, 6, 9, 11, 21]))
    def pause(self, seconds: float) -> None:
        self.time.now += seconds

    @precondition(lambda self: self.held)
    @rule(driver=DRIVERS, fault=FAULTS)
    def commit(self, driver: int, fault: str) -> None:
        if driver not in self.held:
            return
        lease = self.held[driver]
        owner = read_lease(self.root_store)
        self.stores[driver].fault[:] = [fault]
        try:
            found = commit(self.stores[driver], result(f"a{lease.fence}"), lease)
        except LeaseLost:
            assert owner and not owner.held_by(lease.fence, lease.holder.id)
            return
        except StorageError:
            return
        finally:
            self.stores[driver].fault.clear()
        assert owner and owner.held_by(lease.fence, lease.holder.id), "committed without holding the run"
        assert self.committed is None or found.data == self.committed.data

    @invariant()
    def one_record_for_ever(self) -> None:
        found = read_committed(self.root_store)
        if self.committed is None:
            self.committed = found
        assert (found and found.data) == (self.committed and self.committed.data)

    @property
    def root_store(self) -> Any:
        return replace(self.stores[0], fault=[])

    def _act(self, driver: int, act: str) -> None:
        if driver not in self.held:
            return
        lease = self.held[driver]
        owner = read_lease(self.root_store)
        ours = owner is not None and owner.held_by(lease.fence, lease.holder.id)
        try:
            if act == "end":
                del self.held[driver]
                self.ended.add(lease.fence)
                lease.end()
            elif act == "beat":
                lease.renew()
                assert ours
            else:
                lease.check()
                assert ours, "a check passed without the lease"
                assert self.time.now - lease.confirmed_at <= TIMING.commit_s
                self.passed[lease.fence] = self.time.now
        except LeaseLost:
            assert not ours
        except StorageError:
            return  # the driver tries again, or ends


Drivers.TestCase.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDrivers = Drivers.TestCase
