"""A rank that stops or keeps the others waiting is found, seen in the logs and replaced; a slow one is left alone."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cluster import Told

from vitpipe.infra.errors import IntegrityError, Lost, StageError, Stopped, StorageError
from vitpipe.infra.ray import gang_watch, on_worker
from vitpipe.infra.ray.gang_losses import NAMED, Losses
from vitpipe.infra.ray.gang_notes import Ending, Failure
from vitpipe.infra.work import Job

HANG_S = 6
PAIR = SimpleNamespace(workers=2, cpus_per_worker=1, gpus_per_worker=None, max_failures=1, hang_timeout_s=HANG_S)


def stand_still(how: str, folder: Path, rank) -> None:
    import torch.distributed as dist

    group = dist.new_group(range(rank.world_size))  # without a timeout of its own, as DeepSpeed makes them
    dist.barrier(group)
    Path(folder, f"rank-{rank.rank}-{rank.restart}").write_text(str(os.getpid()))
    if rank.restart == 0 and rank.rank == 1:
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(3600)
    if rank.restart == 1:  # negative control: longer than the timeout, but it answers, and no other waits for long
        time.sleep(1.5 * HANG_S + rank.rank)
    dist.barrier(group)


@pytest.mark.ray
@pytest.mark.parametrize("how", ["stopped", pytest.param("asleep", marks=pytest.mark.drill)])
def test_a_hung_rank_is_seen_and_replaced(how: str, ray_session, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", "vitpipe.infra.ray.worker_output")
    told = Told(tmp_path / "events")
    ray_session.named(f"{how}-rank", events=told).gang(partial(stand_still, how, tmp_path), resources=PAIR)
    assert {path.name for path in tmp_path.glob("rank-*")} == {"rank-0-0", "rank-1-0", "rank-0-1", "rank-1-1"}
    (line,) = told.lines()
    assert line.startswith("rank_lost") and "failure 1 of 2" in line
    pids = [(tmp_path / f"rank-{rank}-0").read_text() for rank in (0, 1)]
    for pid in pids:
        for _ in range(100):
            if any(f"pid {pid}" in text and "in stand_still" in text for text in caplog.messages):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"no stack of {pid} in the log")
        assert not Path(f"/proc/{pid}").exists()


@dataclass(frozen=True)
class StopsUnpacked:
    """Stops the first rank that it comes to, before that one has met any other."""

    folder: Path

    def __reduce__(self) -> tuple[Callable[[Path], "StopsUnpacked"], tuple[Path]]:
        return stop_once, (self.folder,)


def stop_once(folder: Path) -> StopsUnpacked:
    if "RANK" in os.environ and not (folder / "stopped").exists():
        (folder / "stopped").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    return StopsUnpacked(folder)


def mark_restart(first: StopsUnpacked, rank) -> None:
    (first.folder / f"{rank.rank}-{rank.restart}").touch()


@pytest.mark.ray
def test_a_rank_that_hangs_in_its_first_moments_is_replaced(ray_session, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gang_watch, "SILENCE_S", 2 * HANG_S)  # on a busy machine others may be late by that, too
    told, patient = Told(tmp_path / "events"), SimpleNamespace(**{**vars(PAIR), "max_failures": 5})
    ray_session.named("early", events=told).gang(partial(mark_restart, StopsUnpacked(tmp_path)), resources=patient)
    begun = {path.name for path in tmp_path.glob("?-?")}
    assert {"0-0", "1-0"}.isdisjoint(begun) and len(begun) >= 2, "nobody began without it"
    pid = (tmp_path / "stopped").read_text()
    assert f"pid {pid}): it was silent for" in told.lines()[0] and not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("then", "ends"), [("in step 7", True), ("in step 8", False)])
def test_the_same_words_are_the_same_failure_at_the_same_step_alone(then: str, ends: bool) -> None:
    """Whatever the other rank says about it."""
    losses = losses_of(Job("run", "node"))
    losses.count(failed("in step 7", port=4711), {})
    with pytest.raises(StageError, match=r"a bug \(in step 7\)") if ends else nullcontext():
        losses.count(failed(then, port=4712), {})


MEMORY = Failure("out of memory on 10.0.0.7 (31 of 32 GB used)", is_gone=True, of_memory=True)
CRASH = Failure("ActorDiedError: its worker process has died", is_gone=True)
"""What Ray says of every process that ends without a word."""


@pytest.mark.parametrize(
    ("deaths", "steps", "ends"),
    [
        ((MEMORY, MEMORY), ("after step 7",) * 2, True),
        ((MEMORY, MEMORY), ("after step 7", "after step 8"), False),
        ((MEMORY, MEMORY), (None, None), False),
        ((CRASH, CRASH), ("after step 7",) * 2, False),
        ((MEMORY, CRASH), ("after step 7",) * 2, False),
    ],
    ids=["memory", "memory-elsewhere", "memory-nowhere", "crashes", "memory-then-crash"],
)
def test_lack_of_memory_twice_at_one_step_ends_and_losses_do_not(
    deaths: tuple[Failure, Failure], steps: tuple[str | None, str | None], ends: bool, tmp_path: Path
) -> None:
    """Whatever the other rank says about it."""
    told = Told(tmp_path / "events")
    losses = losses_of(Job("run", "node", events=told))
    first, second = ({1: step} if step else {} for step in steps)
    losses.count(died(deaths[0], port=4711), first)
    with pytest.raises(StageError, match=r"same failure twice: out of memory.*step 7") if ends else nullcontext():
        losses.count(died(deaths[1], port=4712), second)
    named = ["rank 1 (place unknown): out of memory on 10.0.0.7" in line for line in told.lines()]
    assert named == [death is MEMORY for death in deaths]
    assert all("4711" not in line and "4712" not in line for line in told.lines()), "who lost it is not told"


def test_losses_are_charged_and_preemptions_and_growth_are_not(tmp_path: Path) -> None:
    told = Told(tmp_path / "events")
    losses = losses_of(Job("run", "node", events=told), max_failures=1)
    left = {rank: Failure("Stopped", Stopped("train", "a notice", ""), noticed=True) for rank in (0, 1)}
    for ending in (Ending(left, {}), Ending(left, {}, frozenset({"m"}))):  # more room; a machine is taken away
        losses.check(ending)
        losses.count(ending, {})
    place = SimpleNamespace(node="m")
    losses.count(Ending({1: CRASH}, {1: place}, frozenset({"m"})), {})  # taken away before it could leave
    losses.count(Ending({1: CRASH}, {1: place}, frozenset({"another"})), {})
    with pytest.raises(Lost, match="lost 2 times, last: rank 1"):
        losses.count(Ending({1: CRASH}, {}), {})
    assert [line.split()[0] for line in told.lines()] == ["preempted", "rank_lost", "rank_lost"]


def test_what_a_rank_raised_of_ours_is_raised_and_the_gravest_first() -> None:
    errors = [StorageError("read", "403", ""), IntegrityError("read", "a flipped bit", "")]
    failures = {rank: Failure(str(error), error, trace=f"trace {rank}") for rank, error in enumerate(errors)}
    with pytest.raises(IntegrityError) as caught:
        losses_of(Job("run", "node")).check(Ending(failures, {}))
    assert caught.value.__notes__ == ["rank 0: trace 0\nrank 1: trace 1"]
    losses_of(Job("run", "node")).check(failed("in step 7", port=4711))


def test_of_many_ranks_those_are_named_that_say_why(tmp_path: Path) -> None:
    told = Told(tmp_path / "events")
    losses = losses_of(Job("run", "node", events=told))
    lost = {rank: Failure(f"RuntimeError: peer {rank} closed") for rank in range(512)}
    losses.count(Ending(lost | {300: Failure("ValueError: a bug")}, {}), {})
    (line,) = told.lines()
    assert line.startswith("rank_lost rank 300 (place unknown): ValueError: a bug; rank 0") and "and 504 more" in line
    assert line.count("rank ") == NAMED


@pytest.mark.parametrize(("before", "after", "told"), [(2, 3, True), (3, 2, True), (3, 3, False), (0, 3, False)])
def test_another_number_of_ranks_is_told(before: int, after: int, told: bool, tmp_path: Path) -> None:
    """A gang's first start is none, and neither is one on as many ranks."""
    events = Told(tmp_path / "events")
    losses = losses_of(Job("run", "node", events=events))
    for ranks in filter(None, (before, after)):
        losses.begin(ranks)
    assert [line.startswith(f"resized {before} ranks become {after}") for line in events.lines()] == [True] * told


def abort_beside(rank) -> None:
    """As NCCL's watchdog ends a rank that waits: from a thread of its own."""
    if rank.restart == 0 and rank.rank == 1:
        threading.Timer(1.0, os.abort).start()
        wait_for_the_end()


def wait_for_the_end() -> None:
    time.sleep(3600)


@pytest.mark.ray
def test_a_rank_that_aborts_leaves_the_stacks_of_all_its_threads(ray_session, caplog) -> None:
    caplog.set_level("INFO", "vitpipe.infra.ray.worker_output")
    ray_session.named("aborting").gang(abort_beside, resources=PAIR)
    for _ in range(100):
        if any("in wait_for_the_end" in text for text in caplog.messages):
            return
        time.sleep(0.1)
    raise AssertionError("the thread that waited is not in the log")


def note_and_die(folder: Path, rank) -> None:
    import torch.distributed as dist

    rank.reached(11)
    rank.reached(7)
    dist.barrier()
    Path(folder, f"{rank.rank}-{rank.restart}").write_text(str(os.getpid()))
    if rank.restart == 0 and rank.rank == 1:
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


@pytest.mark.ray
def test_the_step_of_a_killed_rank_is_still_told(ray_session, tmp_path: Path) -> None:
    import ray

    ray_session.named("noting").gang(partial(note_and_die, tmp_path), resources=PAIR)
    ask = ray.remote(on_worker.last_reached).options(num_cpus=0)
    assert ray.get(ask.remote(int((tmp_path / "1-0").read_text()))) == "after step 7"
    assert ray.get(ask.remote(2**22 + 1)) == "before a first step"


def losses_of(job: Job, max_failures: int = 3) -> Losses:
    return Losses(job, "run 2 ranks of node", max_failures)


def failed(note: str, port: int) -> Ending:
    """Two ranks, one with a bug."""
    peer = Failure(f"RuntimeError: peer 127.0.0.1:{port} closed the connection")
    return Ending({0: peer, 1: Failure(f"ValueError: a bug ({note})")}, {})


def died(how: Failure, port: int) -> Ending:
    """Two ranks, of which one's process is gone."""
    return Ending({**failed("in step 7", port).failures, 1: how}, {})
