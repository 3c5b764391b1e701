"""Many independent Ray tasks: results as they end, machines may be lost, one failure stops no other."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import ray
from ray import ObjectRef, cloudpickle
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfDiskError,
    OutOfMemoryError,
    OwnerDiedError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra import metrics
from vitpipe.infra.errors import Lost, StageError
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.capacity import patience
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.one_queue import AnyTicket, OneQueue, Ticket
from vitpipe.infra.ray.wait import Wait
from vitpipe.infra.work import Done, Item, Job, Result

T = TypeVar("T")

LOST = (WorkerCrashedError, NodeDiedError, ObjectLostError, OwnerDiedError, OutOfMemoryError, OutOfDiskError)
"""Errors that are not the task's own fault: it is worth another try on another machine."""
LOOK_S = 1.0
"""How often a waiting driver looks whether someone wants it to stop."""


def fan(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    job: Job,
    queue: OneQueue,
    bundle: dict[str, float],
    max_failures: int,
    wait_s: float,
    label: Callable[[Item], str],
    seconds: Callable[[Item], float | None],
) -> Iterator[Done[Item, Result]]:
    """Run `fn(item)` for each item as a task of its own, in the turn that the queue of all nodes gives it.

    A lost task runs again, at most `max_failures` times. Errors of tasks are inside their Done: a VitpipeError as it
    was raised. Raised here: Stopped, LeaseLost, StageError when the cluster stays too small for one task, and Lost when
    it is gone.
    """
    wait, room = Wait(job, queue), patience(bundle, 1, wait_s, f"run tasks of {job.node}")
    room.check()
    # a ticket whose turn it is, or the reference of a task that ended
    inbox: SimpleQueue[Ticket[Item] | ObjectRef] = SimpleQueue()
    tickets = [Ticket(item, bundle, seconds(item), inbox.put, node=job.node) for item in items]
    running: dict[ObjectRef, Ticket[Item]] = {}
    left, remote = len(tickets), ray.remote(_run)
    work = cloudpickle.dumps((fn, job))  # once: of a small task it would be a tenth of the driver's time
    with _queued(queue, tickets, running):
        wait.tell("missing")
        while left:
            message = next_message(inbox)
            job.ask_to_stop()
            if message is None:
                wait.look(idle=not running)
                room.check()
            elif isinstance(message, Ticket):
                options = _options(message, queue, f"{job.node}/{label(message.item)}")
                reference = remote.options(**options).remote(work, message.item, wait.over())
                running[reference] = message
                reference.future().add_done_callback(lambda _, ended=reference: inbox.put(ended))
            else:
                done: Done[Item, Result] | None = _collect(
                    message, running.pop(message), queue, job, max_failures, label
                )
                if done is not None:
                    left -= 1
                    yield done


@contextmanager
def _queued(queue: OneQueue, tickets: Sequence[AnyTicket], running: Mapping[ObjectRef, AnyTicket]) -> Iterator[None]:
    """Have these tickets in the queue; at the end they leave it, and what runs of them ends."""
    is_gone = False
    try:
        queue.join(tickets)
        yield
    except Lost:
        is_gone = True  # nothing can be asked of the cluster any more, and its machines end by themselves
        raise
    finally:
        queue.leave(tickets)
        if not is_gone:
            queue.look()
            _cancel(list(running))


def next_message(inbox: "SimpleQueue[T]") -> T | None:
    """The next message; None when nothing came for a while."""
    try:
        return inbox.get(timeout=LOOK_S)
    except Empty:
        return None


def _options(ticket: AnyTicket, queue: OneQueue, name: str) -> dict[str, object]:
    """Say what a task needs, and on which machine the queue holds room for it.

    It goes elsewhere, should that be gone or busy with the work of another driver.
    """
    asked = {"num_cpus": ticket.bundle.get("CPU", 0), "num_gpus": ticket.bundle.get("GPU", 0)}
    options = {**asked, "max_retries": 0, "name": name}
    if len(queue.there.has) > 1:
        there = NodeAffinitySchedulingStrategy(ticket.machines[0], soft=True, _spill_on_unavailable=True)
        options["scheduling_strategy"] = there
    return options


def _run(work: bytes, item: Item, is_awaited: bool = False) -> Any:
    """Run one task, in a worker's process, by its function and job; `is_awaited` is the first after a wait."""
    fn, job = pickle.loads(work)
    on_worker.prepare(job)
    if is_awaited and job.progress:
        job.progress.begun()
    try:
        with on_worker.named_errors(f"run a task of {job.node}"):
            return fn(item)
    finally:
        on_worker.last_words(job)


def _collect(
    reference: ObjectRef,
    ticket: Ticket[Item],
    queue: OneQueue,
    job: Job,
    max_failures: int,
    label: Callable[[Item], str],
) -> Done[Item, Result] | None:
    """Return what became of a task, or None when it waits once more."""
    done: Done[Item, Result] | None = _outcome(reference, ticket, job, max_failures, label(ticket.item))
    queue.leave([ticket], ended=done is not None)
    if done is None:
        queue.join([ticket])
    return done


def _outcome(
    reference: ObjectRef, task: Ticket[Item], job: Job, max_failures: int, name: str
) -> Done[Item, Result] | None:
    """Return what became of a task, or None when it is to run again."""
    try:
        return Done(task.item, result=ray.get(reference))
    except RayTaskError as error:
        return Done(task.item, error=_cause(error))
    except LOST as error:
        may_run_again = task.lose(max_failures)
        metrics.NodeMetrics(job.run, job.node).inc("restarts_total")
        reason = in_words(error)
        job.tell("rank_lost", f"task {job.node}/{name} was lost ({task.losses} of {max_failures + 1}): {reason}")
        if may_run_again:
            return None
        found = f"it was lost {task.losses} times, last: {reason}"
        return Done(task.item, error=Lost(f"run task {job.node}/{name}", found, "look at the machines' health"))
    except RayError as error:
        return Done(task.item, error=Lost(f"run task {job.node}/{name}", str(error), "see the log"))


def _cause(error: RayTaskError) -> Exception:
    """Return the task's own exception, with where it was raised as a note."""
    cause = error.cause if isinstance(error.cause, Exception) else StageError("run a task", str(error), "see the log")
    cause.add_note(str(error))
    return cause


def _cancel(references: list[ObjectRef]) -> None:
    """End tasks that still run: nobody waits for their results any more."""
    for reference in references:
        ray.cancel(reference, force=True)
    if references:
        ray.wait(references, num_returns=len(references), timeout=10)
