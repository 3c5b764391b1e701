"""One writer per run: taking, keeping, losing and giving up the lease, and the right to commit that hangs on it."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_clock import FakeClock

from vitpipe.infra.errors import Changed, IntegrityError, LeaseLost, Stopped, StorageError, UsageError
from vitpipe.infra.events import read_events
from vitpipe.infra.fence import StoreFence
from vitpipe.infra.lease_state import LEASE, TIMING, Holder, LeaseState, Timing, read_lease, read_stop, request_stop
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.lease import Lease, acquire, hold

QUICK = Timing(renew_s=0.01, commit_s=5.0, watch_s=10.0, poll_s=0.01, look_s=0.01)


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return LocalStore(tmp_path)


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


class LostAnswer(LocalStore):
    """Its swaps and creates take effect, and are then reported as lost races: S3 after a retry."""

    def swap(self, path: str, data: bytes, version: str) -> str:
        super().swap(path, data, version)
        raise Changed(f"replace {path}", "412")


def other(holder: Holder, **changes: object) -> bytes:
    return LeaseState(7, 3, replace(holder, **changes), "elsewhere", 1.0, 1.0).encode()  # type: ignore[arg-type]


def test_the_fence_grows_and_the_file_stays(run: Store, time: FakeClock) -> None:
    for fence in (1, 2, 3):
        lease = acquire(run, clock=time.clock)
        assert lease.fence == fence and json.loads(run.read(LEASE))["holder"]["pid"] == os.getpid()
        lease.end()
        assert json.loads(run.read(LEASE)) | {"renewed": 0, "beat": 0} == {
            "fence": fence, "beat": 0, "holder": None, "renewed": 0,
        }  # fmt: skip
    assert time.slept == []


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"holder": null}', b'{"fence": "x", "beat": 1, "holder": null}']
)
def test_a_lost_lease_is_taken_above_all_attempts_and_that_is_the_remedy_for_a_damaged_one(
    run: Store, time: FakeClock, damage: bytes
) -> None:
    for path in ("net/a3/attempt.json", "net/a12.2/metrics.jsonl", "fan/one/a7/attempt.json", "net/record.9.json"):
        run.write(path, b"{}")
    acquire(run, clock=time.clock).end()
    run.write(LEASE, damage)
    with pytest.raises(IntegrityError, match="delete that file"):
        acquire(run, clock=time.clock)
    run.delete(LEASE)
    assert acquire(run, clock=time.clock).fence == 13


def test_a_moving_lease_is_left_alone(run: Store, time: FakeClock) -> None:
    first = acquire(run, clock=time.clock)
    time.meanwhile = itertools.chain([lambda: None] * 4, [first.renew])
    with pytest.raises(LeaseLost, match="is alive"):
        acquire(run, clock=time.clock)
    assert len(time.slept) == 5
    first.check()


def test_a_silent_lease_is_taken_over_after_the_watch(run: Store, time: FakeClock) -> None:
    first, began = acquire(run, clock=time.clock), time.now
    second = acquire(run, clock=time.clock)
    assert second.fence == 2 and time.now - began >= TIMING.watch_s
    assert [event.kind for event in read_events(run)] == ["takeover"]
    for ask in (first.check, first.renew, first.stopping):
        with pytest.raises(LeaseLost):
            ask()
    first.end()
    second.check()


def test_a_lease_given_up_during_the_watch_is_taken_at_once(run: Store, time: FakeClock) -> None:
    first = acquire(run, clock=time.clock)
    time.meanwhile = iter([first.end])
    assert acquire(run, clock=time.clock).fence == 2 and len(time.slept) == 1
    assert list(read_events(run)) == []


def test_a_beat_that_a_cached_view_hides_is_seen_by_the_swap(tmp_path: Path, time: FakeClock) -> None:
    class Cached(LocalStore):
        """An NFS client that shows what it saw first, until a change of its own goes to the server."""

        def read_version(self, path: str) -> tuple[bytes, str]:
            return shown[0] if shown else super().read_version(path)

        def swap(self, path: str, data: bytes, version: str) -> str:
            shown.clear()
            return super().swap(path, data, version)

    first = acquire(LocalStore(tmp_path), clock=time.clock)
    shown = [LocalStore(tmp_path).read_version(LEASE)]
    time.meanwhile = itertools.repeat(first.renew, 20)
    with pytest.raises(LeaseLost, match="is alive"):
        acquire(Cached(tmp_path), clock=time.clock)
    first.check()
    assert TIMING.watch_s <= sum(time.slept) < TIMING.watch_s + 2, "one watch, and no takeover"


@pytest.fixture(scope="module")
def dead() -> Iterator[Holder]:
    """A process of this machine that is no more, though nobody has waited for it yet."""
    code = "from vitpipe.infra.lease_state import Holder; print(list(vars(Holder.me()).values()))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child.stdout as out:
        line = out.read()
    yield Holder(*json.loads(line.replace("'", '"')))
    child.wait()


def test_a_dead_holder_is_overtaken_without_a_watch(run: Store, time: FakeClock, dead: Holder) -> None:
    while not dead.provably_dead():  # the child has said its last word and is about to end
        pass
    run.create(LEASE, other(dead))
    assert acquire(run, clock=time.clock).fence == 8 and time.slept == []


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"pid_ns": "another"}, {"boot_id": ""}])
def test_of_another_machine_nothing_is_proved(
    run: Store, time: FakeClock, dead: Holder, change: dict[str, str]
) -> None:
    run.create(LEASE, other(dead, **change))
    assert acquire(run, clock=time.clock).fence == 8 and sum(time.slept) >= TIMING.watch_s


def test_a_reused_pid_is_another_process() -> None:
    me = Holder.me()
    assert not me.provably_dead()
    assert replace(me, start_time=me.start_time - 1).provably_dead()


def test_a_refusal_caused_by_our_own_write_is_success(tmp_path: Path, time: FakeClock) -> None:
    lease = acquire(LocalStore(tmp_path), clock=time.clock)
    lease.run = LostAnswer(tmp_path)
    time.now += 7
    lease.renew()
    assert lease.confirmed_at == time.now
    lease.check()
    lease.end()
    assert read_lease(LocalStore(tmp_path)) == replace(LeaseState(1, 0, None), **_times(LocalStore(tmp_path)))
    taken = acquire(LostAnswer(tmp_path), clock=time.clock)
    assert taken.fence == 2
    taken.check()


def _times(run: Store) -> dict[str, object]:
    state = read_lease(run)
    assert state
    return {"beat": state.beat, "clock": state.clock, "at": state.at, "time": state.time}


def test_no_check_passes_on_an_old_beat(run: Store, time: FakeClock) -> None:
    lease = acquire(run, clock=time.clock)
    time.now += TIMING.commit_s
    lease.check()
    assert read_lease(run).beat == 0  # type: ignore[union-attr]
    time.now += 0.1
    lease.check()
    assert read_lease(run).beat == 1 and lease.confirmed_at == time.now  # type: ignore[union-attr]


def test_a_beat_that_the_store_refuses_confirms_nothing(run: Store, time: FakeClock, tmp_path: Path) -> None:
    class Down(LocalStore):
        def swap(self, path: str, data: bytes, version: str) -> str:
            raise StorageError("swap", "503")

    lease = acquire(run, clock=time.clock)
    lease.run = Down(tmp_path)
    time.now += 11
    with pytest.raises(StorageError):
        lease.check()


def test_what_was_lost_or_given_up_is_never_taken_back(run: Store, time: FakeClock) -> None:
    first = acquire(run, clock=time.clock)
    second = acquire(run, clock=time.clock)
    for _ in range(2):  # the first refusal must not teach us the version that would overwrite the second's
        with pytest.raises(LeaseLost):
            first.renew()
    second.end()
    with pytest.raises(LeaseLost):
        second.renew()
    assert read_lease(run).fence == 2 and read_lease(run).holder is None  # type: ignore[union-attr]


def test_a_deleted_lease_is_lost(run: Store, time: FakeClock) -> None:
    lease = acquire(run, clock=time.clock)
    run.delete(LEASE)
    with pytest.raises(LeaseLost, match="gone"):
        lease.check()


def test_a_damaged_lease_is_named(run: Store) -> None:
    run.write(LEASE, b"{}")
    with pytest.raises(IntegrityError, match=r"lease\.json"):
        acquire(run)


def test_the_holder_beats_by_itself_and_hears_of_a_stop(run: Store) -> None:
    heard: list[Exception] = []
    told = threading.Event()
    with hold(run, lambda error: (heard.append(error), told.set()), QUICK) as lease:
        assert request_stop(run, "somebody asked") == lease.fence
        assert told.wait(20)
        assert isinstance(heard[0], Stopped) and lease.stopping() == "somebody asked"
        assert read_lease(run).beat > 0  # type: ignore[union-attr]
    assert read_lease(run).holder is None and request_stop(run, "again") is None  # type: ignore[union-attr]


def test_a_stop_names_the_fence_it_stops(run: Store) -> None:
    with hold(run, timing=QUICK) as lease:
        request_stop(run, "first")
    with hold(run, timing=QUICK) as later:
        assert read_stop(run, lease.fence) == "first" and read_stop(run, later.fence) is None


def overtake(run: Store, content: bytes) -> None:
    """Swap another's lease in between two beats, as drivers do; a plain write could be lost to a beat under way."""
    while True:
        try:
            run.swap(LEASE, content, run.read_version(LEASE)[1])
            return
        except Changed:
            continue


def test_the_holder_hears_that_it_was_overtaken(run: Store) -> None:
    heard: list[Exception] = []
    told = threading.Event()
    with hold(run, lambda error: (heard.append(error), told.set()), QUICK):
        overtake(run, other(Holder.me()))
        assert told.wait(20)
    assert isinstance(heard[0], LeaseLost)
    assert read_lease(run).fence == 7 and read_lease(run).holder is not None  # type: ignore[union-attr]


def test_stopping_an_unknown_run_is_bad_usage(run: Store) -> None:
    with pytest.raises(UsageError):
        request_stop(run, "please")


# the fence that travels to ranks and tasks


def travelled(lease: Lease, time: FakeClock, timing: Timing = TIMING) -> StoreFence:
    """As it arrives in another process. The fake clock does not travel."""
    sent: StoreFence = pickle.loads(pickle.dumps(replace(lease.fence_for_tasks(), clock=replace(FakeClock()).clock)))
    return replace(sent, clock=time.clock, timing=timing)


def test_on_the_holders_machine_its_own_time_counts(run: Store, time: FakeClock) -> None:
    lease = acquire(run, clock=time.clock)
    fence = travelled(lease, time)
    fence.check()
    time.now += TIMING.commit_s
    fence.check()
    assert time.slept == []
    time.now += 0.1
    time.meanwhile = iter([lease.renew])
    fence.check()
    assert len(time.slept) == 1


def elsewhere(run: Store) -> None:
    """Let the lease look as if its holder had another machine's clock."""
    state = read_lease(run)
    assert state
    run.write(LEASE, replace(state, clock="another machine", beat=state.beat + 1).encode())


def test_on_another_machine_only_a_beat_seen_to_change_counts(run: Store, time: FakeClock) -> None:
    fence = travelled(acquire(run, clock=time.clock), time)
    elsewhere(run)
    time.meanwhile = itertools.chain([lambda: None] * 3, [lambda: elsewhere(run)])
    fence.check()
    assert len(time.slept) == 4
    time.now += TIMING.commit_s - 1  # confirmed was the look before the change
    fence.check()
    assert len(time.slept) == 4


def test_a_silent_driver_lets_nobody_commit(run: Store, time: FakeClock) -> None:
    fence = travelled(acquire(run, clock=time.clock), time)
    time.now += TIMING.commit_s + 0.1
    with pytest.raises(LeaseLost, match="no beat"):
        fence.check()


def test_an_overtaken_rank_commits_nothing_and_is_told(run: Store, time: FakeClock) -> None:
    first = acquire(run, clock=time.clock)
    fence = travelled(first, time)
    fence.check()
    acquire(run, clock=time.clock)
    with pytest.raises(LeaseLost):
        fence.check()
    with pytest.raises(LeaseLost):
        fence.stopping()


def test_ranks_see_a_stop_without_asking_the_store_themselves(run: Store) -> None:
    with hold(run, timing=replace(QUICK, commit_s=100)) as lease:
        fence = lease.fence_for_tasks()
        assert fence.stopping() is None
        lease.request_stop("SIGTERM")
        pause = threading.Event()
        while fence.stopping() is None:
            pause.wait(0.01)
        assert fence.stopping() == "SIGTERM"
    with pytest.raises(LeaseLost):
        fence.check()
