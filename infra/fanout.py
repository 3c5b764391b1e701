"""Many independent Ray tasks: results as they end, machines may be lost, one failure stops no other."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import ray
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

from infra import on_worker
from infra.capacity import Patience, room
from infra.errors import StageError
from infra.work import Done, Item, Job, Result

LOST = (WorkerCrashedError, NodeDiedError, ObjectLostError, OwnerDiedError, OutOfMemoryError, OutOfDiskError)
"""Not the task's own fault: worth another machine."""
LOOK_S = 1.0
"""How often a waiting driver looks whether someone wants it to stop."""
IN_FLIGHT = 64
"""Tasks handed to Ray beyond what can run at once, so that an autoscaler sees the demand."""


@dataclass
class _Task(Generic[Item]):
    item: Item
    losses: int = 0


def fan(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    job: Job,
    bundle: dict[str, float],
    max_failures: int,
    wait_s: float,
    label: Callable[[Item], str],
) -> Iterator[Done[Item, Result]]:
    """Run `fn(item)` for each item as a task of its own, first come first started.

    A lost task runs again, at most `max_failures` times. Errors of tasks are inside their Done: a VitpipeError as it
    was raised. Raised here: Stopped, LeaseLost, and StageError when the cluster stays too small for one task.
    """
    patience = Patience(bundle, 1, wait_s, f"run tasks of {job.node}")
    patience.check()
    waiting = deque(_Task(item) for item in items)
    running: dict[Any, _Task[Item]] = {}
    remote = ray.remote(_run)
    options = {"num_cpus": bundle.get("CPU", 0), "num_gpus": bundle.get("GPU", 0), "max_retries": 0}
    at_once = room(bundle) + IN_FLIGHT
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                task = waiting.popleft()
                name = f"{job.node}/{label(task.item)}"
                running[remote.options(**options, name=name).remote(fn, job, task.item)] = task
            ended, _ = ray.wait(list(running), timeout=LOOK_S)
            job.ask_to_stop()
            if not ended:
                patience.check()
            for reference in ended:
                task = running.pop(reference)
                done: Done[Item, Result] | None = _collect(reference, task, job, max_failures, label(task.item))
                if done is None:
                    waiting.appendleft(task)
                else:
                    yield done
    finally:
        _cancel(list(running))


def _run(fn: Callable[[Item], Result], job: Job, item: Item) -> Result:
    """In the worker."""
    on_worker.prepare(job)
    with on_worker.named_errors(f"run a task of {job.node}"):
        return fn(item)


def _collect(reference: Any, task: _Task[Item], job: Job, max_failures: int, name: str) -> Done[Item, Result] | None:
    """What became of a task, or None when it shall run again."""
    try:
        return Done(task.item, result=ray.get(reference))
    except RayTaskError as error:
        return Done(task.item, error=_cause(error))
    except LOST as error:
        task.losses += 1
        reason = _reason(error)
        job.tell("rank_lost", f"task {job.node}/{name} was lost ({task.losses} of {max_failures + 1}): {reason}")
        if task.losses <= max_failures:
            return None
        found = f"it was lost {task.losses} times, last: {reason}"
        return Done(task.item, error=StageError(f"run task {job.node}/{name}", found, "look at the machines' health"))
    except RayError as error:
        return Done(task.item, error=StageError(f"run task {job.node}/{name}", str(error), "see the log"))


def _cause(error: RayTaskError) -> Exception:
    """The task's own exception, with where it was raised as a note."""
    cause = error.cause if isinstance(error.cause, Exception) else StageError("run a task", str(error), "see the log")
    cause.add_note(str(error))
    return cause


def _reason(error: Exception) -> str:
    if isinstance(error, OutOfMemoryError):
        return "out of memory, ended by Ray before the machine was"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".strip(": ")


def _cancel(references: list[Any]) -> None:
    """End what still runs; whoever asks for results now has gone."""
    for reference in references:
        ray.cancel(reference, force=True)
    if references:
        ray.wait(references, num_returns=len(references), timeout=10)
