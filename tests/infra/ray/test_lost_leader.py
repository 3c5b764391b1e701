"""The process that leads a gang is lost: counted like another loss, told as what it was, nobody of before lives on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import OutOfMemoryError
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller.state import ReschedulingState, SchedulingState
from test_cluster import Told
from test_hung_ranks import failed, gang_watch

from vitpipe.infra.errors import Lost, StageError
from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray import fanout, on_worker
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.gang_notes import GangNotes, GangState, Process
from vitpipe.infra.ray.gang_watch import GangWatch
from vitpipe.infra.ray.one_queue import Ticket
from vitpipe.infra.work import Job

PAIR = SimpleNamespace(workers=2, cpus_per_worker=1, gpus_per_worker=None, max_failures=2, hang_timeout_s=600)


def leader() -> int:
    """Process id of the only controller that lives."""
    from ray._private import state

    (found,) = [
        actor["Pid"] for actor in state.actors().values()
        if actor["State"] == "ALIVE" and "TrainController" in actor["ActorClassName"]
    ]  # fmt: skip
    return int(found)


@dataclass(frozen=True)
class DiesUnpacked:
    """Kills the first rank that it comes to, before that one has begun with anything."""

    folder: Path

    def __reduce__(self) -> tuple[Callable[[Path], "DiesUnpacked"], tuple[Path]]:
        return unpack, (self.folder,)


def unpack(folder: Path) -> DiesUnpacked:
    die_once(folder / "died")
    return DiesUnpacked(folder)


def die_once(mark: Path) -> None:
    if "RANK" in os.environ and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def lose(first: DiesUnpacked, rank) -> None:
    """In its first start rank 0 kills its leader, and the others go on as if nothing was."""
    import torch.distributed as dist

    folder = first.folder
    living = [path.name for path in folder.glob("pid-*") if Path("/proc", path.read_text()).exists()]
    assert [name for name in living if not name.endswith(str(rank.restart))] == [], "ranks of before live"
    (folder / f"pid-{rank.rank}-{rank.restart}").write_text(str(os.getpid()))
    dist.barrier()
    if rank.restart == 1:
        if rank.rank == 0:
            os.kill(leader(), signal.SIGKILL)
        time.sleep(600)


@pytest.mark.ray
def test_a_rank_lost_at_its_start_and_a_lost_leader_restart_the_gang(ray_session, tmp_path: Path) -> None:
    """Each start has a number of its own, and the losses are one count, whoever counted them."""
    told = Told(tmp_path / "events")
    ray_session.named("led", events=told).gang(partial(lose, DiesUnpacked(tmp_path)), resources=PAIR)
    begun = {path.name for path in tmp_path.glob("pid-*")}
    assert begun - {"pid-0-0", "pid-1-0"} == {f"pid-{rank}-{k}" for rank in (0, 1) for k in (1, 2)}
    assert len(begun) <= 5, "one of the first start never began"
    first, second = told.lines()
    assert first.startswith("rank_lost a process of the gang, before its first step, was lost: ActorDiedError")
    assert second.startswith("rank_lost the process that leads the ranks was lost: ActorDiedError")
    assert first.endswith("(failure 1 of 3)") and second.endswith("(failure 2 of 3)")


@pytest.mark.ray
@pytest.mark.drill
def test_losses_of_a_leader_are_spent_too(ray_session, tmp_path: Path) -> None:
    once = SimpleNamespace(**{**vars(PAIR), "max_failures": 1})
    with pytest.raises(Lost, match=r"(?i)lost 2 times, last the process that leads the ranks"):
        ray_session.named("unled").gang(partial(lose, DiesUnpacked(tmp_path)), resources=once)


def test_what_an_earlier_leader_counted_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GangWatch, "_end_hung", lambda *_: None)
    told = Told(tmp_path / "events")
    for text in ("1 of 4", "2 of 4"):
        watch = gang_watch(Job("run", "node", events=told), tmp_path)
        watch.after_worker_group_poll_status(failed(f"in step {text[0]}", port=4710 + int(text[0])))
        assert f"(failure {text})" in told.lines()[-1]
    with pytest.raises(StageError, match=r"same failure twice.*step 2"):
        gang_watch(Job("run", "node"), tmp_path).after_worker_group_poll_status(failed("in step 2", port=4713))


@pytest.mark.parametrize(
    ("error", "freed"),
    [(WorkerGroupStartupFailedError("a rank died"), ["ab"]), (WorkerGroupStartupTimeoutError(2), [])],
)
def test_a_start_that_broke_gives_its_places_back(
    error: Exception, freed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train keeps them: without, the next start waits for ever. Nothing was taken where the wait was too long."""
    given: list[str] = []
    monkeypatch.setattr("vitpipe.infra.ray.gang_watch.free", given.append)
    watch = gang_watch(Job("run", "node"), tmp_path)
    watch.notes.note(places="ab")
    state = ReschedulingState(training_failed_error=ControllerError(error))
    watch.after_controller_state_update(SchedulingState(scaling_decision=None), state)
    assert given == freed


def test_a_process_is_ended_and_a_stranger_with_its_number_is_not() -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        stranger = replace(Holder.me(), pid=child.pid)  # began when we did: not this one
        on_worker.end(stranger)
        assert child.poll() is None
        began = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        on_worker.end(replace(stranger, start_time=began))
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()


CROWDED = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: c5) \
was 11.77GB used / 23.54GB limit (0.500073)
OOM kill reason: Memory usage 12567658496B exceeded threshold of 12560617472B (49.7% of 25276502016B limit)
Object store memory usage: [- objects spillable: 1
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
5240\t5.88\tpython hog.py --much
4190\t0.38\tray::RayTrainWorker
"""
"""As Ray 2.60 said it when a neighbour filled the memory."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfMemoryError(CROWDED), "out of memory on 10.0.0.7 (11.77 of 23.54 GB used), ended by Ray's memory "
                                    "monitor; most of it by process 5240, 5.88 GB: python hog.py --much; "
                                    "process 4190, 0.38 GB: ray::RayTrainWorker"),
        (OutOfMemoryError("low on memory"), "out of memory: low on memory"),
        (ValueError("\n  a bug\nmore"), "ValueError: a bug"),
        (ValueError(), "ValueError"),
    ],
)  # fmt: skip
def test_a_death_in_words(error: Exception, words: str) -> None:
    assert in_words(error) == words


def test_a_task_that_the_memory_monitor_ended_is_counted_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(reference: object) -> None:
        raise OutOfMemoryError(CROWDED)

    monkeypatch.setattr(fanout.ray, "get", crowded)
    told, ticket = Told(tmp_path / "events"), Ticket(7, {}, None, lambda ticket: None)
    job = Job("run", "shards", events=told)
    assert fanout._collect("reference", ticket, job, 1, "seven") is None, "it runs again"
    done = fanout._collect("reference", ticket, job, 1, "seven")
    assert done is not None and isinstance(done.error, Lost) and "lost 2 times" in str(done.error)
    first, second = told.lines()
    assert "task shards/seven was lost (1 of 2): out of memory on 10.0.0.7" in first and "(2 of 2)" in second


def test_notes_outlive_their_writer_and_need_no_more_room(tmp_path: Path) -> None:
    notes = GangNotes(tmp_path / "gang.json")
    notes.begin()
    assert notes.read() == GangState()
    size = notes.path.stat().st_size
    rank = Process("node", Holder.me())
    notes.note(starts=1, ranks=(rank,))
    notes.note(failures=2, reasons=("ValueError: a bug (in step 7)",))
    notes.note(places="ab12")
    assert GangNotes(notes.path).read() == GangState(1, 2, ("ValueError: a bug (in step 7)",), (rank,), "ab12")
    notes.note(ranks=())
    assert notes.read().ranks == () and notes.path.stat().st_size == size
