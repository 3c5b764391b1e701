"""A rank that stops or keeps the others waiting is found, seen in the logs and replaced; a slow one is left alone."""

import os
import signal
import threading
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from test_cluster import Told

from vitpipe.infra.errors import StageError
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.capacity import CapacityWait
from vitpipe.infra.ray.gang_notes import GangNotes
from vitpipe.infra.ray.gang_watch import GangWatch
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
            time.sleep(3)  # Ray's controller asks each rank while it starts, and waits for the answer without a bound
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


@pytest.mark.parametrize(("then", "ends"), [("in step 7", True), ("in step 8", False)])
def test_the_same_words_are_the_same_failure_at_the_same_step_alone(
    then: str, ends: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the other rank says about it."""
    monkeypatch.setattr(GangWatch, "_end_hung", lambda *_: None)
    watch = gang_watch(Job("run", "node"), tmp_path)
    watch.after_worker_group_poll_status(failed("in step 7", port=4711))
    with pytest.raises(StageError, match=r"a bug \(in step 7\)") if ends else nullcontext():
        watch.after_worker_group_poll_status(failed(then, port=4712))


LACK = "1 worker(s) were killed due to the node running low on memory. {} GB used"
CRASH = "its worker process has died: (1) it was killed by the OOM killer due to high memory usage, (2) SIGSEGV"
"""Ray's words for every process that ends without a word."""


@pytest.mark.parametrize(
    ("deaths", "places", "ends"),
    [
        ((OutOfMemoryError(LACK.format(31)), OutOfMemoryError(LACK.format(30))), ("after step 7",) * 2, True),
        ((OutOfMemoryError(LACK.format(31)),) * 2, ("after step 7", "after step 8"), False),
        ((OutOfMemoryError(LACK.format(31)),) * 2, (None, None), False),
        ((ActorUnavailableError("Socket closed", None),) * 2, ("after step 7",) * 2, False),
        ((NodeDiedError("its node has died"),) * 2, ("after step 7",) * 2, False),
        ((RayActorError(error_msg=CRASH),) * 2, ("after step 7",) * 2, False),
        ((OutOfMemoryError(LACK.format(31)), RayActorError(error_msg=CRASH)), ("after step 7",) * 2, False),
    ],
    ids=["memory", "memory-elsewhere", "memory-nowhere", "machines", "nodes", "crashes", "memory-then-crash"],
)
def test_lack_of_memory_twice_at_one_step_ends_and_losses_do_not(
    deaths: tuple, places: tuple, ends: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the other rank says about it."""
    events, answers = Told(tmp_path / "events"), iter(places)
    monkeypatch.setattr(GangWatch, "_end_hung", lambda *_: None)
    monkeypatch.setattr(GangWatch, "_place_of_death", lambda *_: next(answers))
    watch = gang_watch(Job("run", "node", events=events), tmp_path)
    watch.after_worker_group_poll_status(died(deaths[0], port=4711))
    with pytest.raises(StageError, match=r"same failure twice: out of memory.*step 7") if ends else nullcontext():
        watch.after_worker_group_poll_status(died(deaths[1], port=4712))
    named = ["out of memory: 1 worker(s)" in line for line in events.lines()]
    assert named == [isinstance(death, OutOfMemoryError) for death in deaths]


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


@pytest.mark.parametrize(("before", "after", "told"), [(2, 3, True), (3, 2, True), (3, 3, False), (0, 3, False)])
def test_another_number_of_ranks_is_told(before: int, after: int, told: bool, tmp_path: Path) -> None:
    """A gang's first start is none, and neither is one on as many ranks."""
    events = Told(tmp_path / "events")
    watch = gang_watch(Job("run", "node", events=events), tmp_path)
    watch._processes = dict.fromkeys(range(before))
    watch.before_controller_execute_resize_decision(SimpleNamespace(num_workers=after))
    assert [line.startswith(f"resized {before} ranks become {after}") for line in events.lines()] == [True] * told


def gang_watch(job: Job, folder: Path) -> GangWatch:
    """One that goes on with what was counted in this folder before."""
    notes = GangNotes(folder / "gang.json")
    if not notes.path.exists():
        notes.begin()
    return GangWatch(job, CapacityWait({}, 0, 0.0, "run"), 3, 60, notes)


def failed(note: str, port: int) -> SimpleNamespace:
    """What Ray Train tells of two ranks, one with a bug."""
    errors = {0: RuntimeError(f"peer 127.0.0.1:{port} closed the connection"), 1: ValueError("a bug")}
    errors[1].add_note(note)
    statuses = {rank: SimpleNamespace(error=error) for rank, error in errors.items()}
    return SimpleNamespace(errors=errors, worker_statuses=statuses, has_preempted_worker=lambda: False)


def died(how: Exception, port: int) -> SimpleNamespace:
    """What Ray Train tells of two ranks, of which one's process is gone."""
    found = failed("in step 7", port)
    found.errors[1] = WorkerHealthCheckFailedError("A worker health check failed.\nWorker info: 1", failure=how)
    found.worker_statuses[1] = SimpleNamespace(error=found.errors[1])
    return found
