"""N ranks in lockstep through Ray Train: started, watched, restarted together, and ended with the right error.

Uses `DataParallelTrainer` with a process-group backend of our own rather than `TorchTrainer`, so that only ranks import
torch, and neither the driver nor Ray's controller does.
"""

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from ray.exceptions import RayError, RayTaskError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from vitpipe.infra.errors import Lost, StageError, Stopped, VitpipeError
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.capacity import CapacityWait
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.fanout import next_message
from vitpipe.infra.ray.gang_notes import GangNotes
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.ray.gang_watch import GangWatch
from vitpipe.infra.ray.lost_controller import Loss, Losses
from vitpipe.infra.ray.one_queue import OneQueue, Ticket
from vitpipe.infra.ray.process_group import ProcessGroup, close_together, here
from vitpipe.infra.ray.wait import Wait
from vitpipe.infra.work import Job, Rank

log = logging.getLogger(__name__)

PREEMPTION_WAIT_S = 900.0
"""How long a rank that has committed waits for Ray to end its gang: leaving by itself would count as a failure. Ray
ends it when the machine goes, at its deadline."""


def gang(
    fn: Callable[[Rank], None],
    *,
    job: Job,
    queue: OneQueue,
    size: Size,
    max_failures: int,
    wait_s: float,
    hang_timeout_s: float,
    folder: str,
) -> None:
    """Run `fn(rank)` on all ranks until all return; restart them together after a loss.

    It waits in the queue of all nodes ahead of every task: those that run end, none begins before the ranks.
    Errors: a rank's VitpipeError as it was raised; Stopped; Lost when `max_failures` losses are spent or Ray is
    gone; StageError when the same exception or lack of memory came twice in a row at the same step, or when too few
    machines are there for `wait_s`. A rank that is silent or lets others wait for `hang_timeout_s` counts as lost, and
    so do all ranks when Ray's process that leads them is lost. `folder`, on the driver's machine, is for Ray's notes
    and ours.
    """
    asked = f"run {size} ranks of {job.node}"
    patience = CapacityWait(size.bundle, size.least, wait_s, asked)
    patience.check()
    notes = GangNotes(Path(folder) / f"gang-{uuid.uuid4().hex}.json")
    notes.begin()
    losses = Losses(job, asked, max_failures, notes)
    run_rank = partial(_run_rank, fn, job, size)
    try:
        with _turn(queue, job, size, patience):
            while (loss := _lead(run_rank, size, losses, patience, hang_timeout_s, folder)) is not None:
                losses.count(loss)
    finally:
        notes.end()


@contextmanager
def _turn(queue: OneQueue, job: Job, size: Size, patience: CapacityWait) -> Iterator[None]:
    """Hold the machines of all ranks in the queue, once it is their turn. Errors: as `gang`, while it is not."""
    inbox: SimpleQueue[Ticket[None]] = SimpleQueue()
    ticket = Ticket(None, size.bundle, job.seconds, inbox.put, is_gang=True, count=size.least, node=job.node)
    wait = Wait(job, queue)
    try:
        queue.join([ticket])
        wait.tell("missing")
        while next_message(inbox) is None:
            job.ask_to_stop()
            wait.look()
            patience.check()
        wait.over()
        yield
        queue.leave([ticket], ended=True)
    finally:
        queue.leave([ticket])


def _lead(
    run_rank: Callable[[], None], size: Size, losses: Losses, patience: CapacityWait, hang_timeout_s: float, folder: str
) -> Loss | None:
    """Have one Ray Train controller lead the ranks to their end; None, or a loss that it does not count itself."""
    job, notes, most = losses.job, losses.notes, losses.max_failures
    trainer = DataParallelTrainer(
        run_rank,
        backend_config=ProcessGroup(math.ceil(hang_timeout_s), "nccl" if size.gpus else "gloo", notes),
        scaling_config=ScalingConfig(
            num_workers=size.workers, use_gpu=bool(size.gpus), resources_per_worker=size.bundle
        ),
        run_config=RunConfig(
            name=f"{job.run}/{job.node}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=most - notes.read().failures),
            callbacks=[GangWatch(job, patience, most, hang_timeout_s, notes)],
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        cause = error.controller_failure if isinstance(error, ControllerError) else error
        if isinstance(cause, RayError) and not isinstance(cause, RayTaskError):
            return Loss("a process of the gang, before its first step,", cause)
        raise _reason(cause, losses.asked, most) from error
    except RayError as error:
        return Loss("the process that leads the ranks", error)
    return None


def _run_rank(fn: Callable[[Rank], None], job: Job, size: Size) -> None:
    """Run one rank, in its process, in the thread that Ray Train keeps for it."""
    rank = here(threads=size.cpus, gpus=size.gpus)
    on_worker.prepare(job, rank=rank.rank)
    on_worker.answer_with_stacks()
    on_worker.forget_steps()
    with on_worker.named_errors(f"run rank {rank.rank} of {job.node}"):
        try:
            fn(rank)
        except Stopped:
            # together: the first to leave would take the others with it, perhaps in the middle of a commit
            if close_together(rank.notice() is not None):
                log.info("stopped for a preemption; waiting to be ended and started again elsewhere")
                time.sleep(PREEMPTION_WAIT_S)
            raise
        finally:
            on_worker.tell_dropped(job)


def _reason(cause: Exception, asked: str, max_failures: int) -> VitpipeError:
    """Return the VitpipeError that ended the gang, or what Ray says as one."""
    if isinstance(cause, VitpipeError):
        return cause
    if isinstance(cause, WorkerGroupError):
        ranks = "; ".join(f"rank {rank}: {in_words(failure)}" for rank, failure in cause.worker_failures.items())
        return Lost(asked, f"lost {max_failures + 1} times, last: {ranks}", "look at the machines, then run again")
    return StageError(asked, f"Ray Train ended with {in_words(cause)}", "see the log")
