"""A rank that stops or keeps the others waiting is found, seen in the logs and replaced; a slow one is left alone."""

import os
import signal
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from test_cluster import Told

from infra import process_group
from infra.capacity import Patience
from infra.errors import StageError
from infra.gang_watch import GangWatch
from infra.work import Job

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
    caplog.set_level("INFO", "infra.worker_output")
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
    then: str, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other rank says about it."""
    monkeypatch.setattr(GangWatch, "_end_hung", lambda *_: None)
    watch = GangWatch(Job("run", "node"), Patience({}, 1, 0.0, "run"), max_failures=3, hang_timeout_s=60)
    watch.after_worker_group_poll_status(failed("in step 7", port=4711))
    with pytest.raises(StageError, match=r"a bug \(in step 7\)") if ends else nullcontext():
        watch.after_worker_group_poll_status(failed(then, port=4712))


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            OutOfMemoryError("Task was killed due to the node running low on memory.\nMore"),
            "out of memory: Task was killed",
        ),
        (ActorDiedError(), "ActorDiedError: The actor died unexpectedly"),
    ],
)
def test_what_a_rank_died_of_is_told(
    cause: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray Train tells it: within an error that says only that a rank is gone."""
    monkeypatch.setattr(GangWatch, "_end_hung", lambda *_: None)
    events = Told(tmp_path / "events")
    watch = GangWatch(Job("run", "node", events=events), Patience({}, 1, 0.0, "run"), 3, hang_timeout_s=60)
    lost = WorkerHealthCheckFailedError("A worker health check failed", cause)
    for _ in range(2):  # dying twice is no bug of ours by itself: machines come back
        watch.after_worker_group_poll_status(
            SimpleNamespace(errors={0: lost}, worker_statuses={0: SimpleNamespace(error=lost)},
                            has_preempted_worker=lambda: False)
        )  # fmt: skip
    first, _ = events.lines()
    assert f"rank 0 (place unknown): {words}" in first and "failure 1 of 4" in first


def test_nccls_settings_give_way_to_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(**{
        f"get_{name}": lambda: 0 for name in ("world_rank", "world_size", "local_rank", "local_world_size", "node_rank")
    })  # fmt: skip
    monkeypatch.setattr(process_group.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(os, "environ", {"NCCL_DEBUG": "INFO"})
    process_group._set_environment("127.0.0.1", 1, 0, on_cpu=True)
    assert os.environ.items() >= {**process_group.NCCL, "NCCL_DEBUG": "INFO", "WORLD_SIZE": "0"}.items()


@pytest.mark.parametrize(("before", "after", "told"), [(2, 3, True), (3, 2, True), (3, 3, False), (0, 3, False)])
def test_another_number_of_ranks_is_told(before: int, after: int, told: bool, tmp_path: Path) -> None:
    """A gang's first start is none, and neither is one on as many ranks."""
    events = Told(tmp_path / "events")
    watch = GangWatch(Job("run", "node", events=events), Patience({}, 1, 0.0, "run"), 3, hang_timeout_s=60)
    watch._processes = dict.fromkeys(range(before))
    watch.before_controller_execute_resize_decision(SimpleNamespace(num_workers=after))
    assert [line.startswith(f"resized {before} ranks become {after}") for line in events.lines()] == [True] * told


def failed(note: str, port: int) -> SimpleNamespace:
    """What Ray Train tells of two ranks, one with a bug."""
    errors = {0: RuntimeError(f"peer 127.0.0.1:{port} closed the connection"), 1: ValueError("a bug")}
    errors[1].add_note(note)
    statuses = {rank: SimpleNamespace(error=error) for rank, error in errors.items()}
    return SimpleNamespace(errors=errors, worker_statuses=statuses, has_preempted_worker=lambda: False)
