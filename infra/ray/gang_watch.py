"""What Ray Train's controller is told about our gangs: which errors are final, and when waiting is over.

Lives inside the controller over all restarts of the gang, until the controller itself is lost: what has to outlive it
is in `gang_notes`. Uses Ray Train's internal callback classes, which `RunConfig(callbacks=...)` accepts; a hook that
raises ends the run with that error.
"""

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import (
    ErroredState,
    PreemptingState,
    ReschedulingState,
    RunningState,
    ShuttingDownState,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra import metrics
from vitpipe.infra.errors import StageError, VitpipeError, gravest
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.capacity import CapacityWait
from vitpipe.infra.ray.deaths import in_words, out_of_memory
from vitpipe.infra.ray.gang_notes import GangNotes
from vitpipe.infra.ray.lost_controller import free
from vitpipe.infra.work import Job

log = logging.getLogger(__name__)

_LOOK = "see the traceback in the log; trying again would not help"
_SMALLER = "lower micro_batch, use more workers, or a larger machine; trying again would not help"

STACKS_S = 5.0
END_S = 60.0
"""Time for a task of ours to start on the machine of a silent rank and end it."""


class GangWatch(WorkerGroupCallback, ControllerCallback):  # type: ignore[misc]  # Ray's classes are untyped
    """Ends a gang at once when trying again cannot help."""

    def __init__(
        self, job: Job, patience: CapacityWait, max_failures: int, hang_timeout_s: float, notes: GangNotes
    ) -> None:
        self.job, self.patience, self.max_failures = job, patience, max_failures
        self.hang_timeout_s = hang_timeout_s
        self.notes = notes
        """What an earlier controller of the gang has counted, and what a later one has to know."""
        self._group: Any = None
        self._processes: dict[int, Any] = {}
        self._bad_starts = 0

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Remember the group that runs now, and have Ray give up a silent rank as soon as this gang wants it."""
        self._group = worker_group
        silence_s = min(worker_group._worker_health_check_timeout_s, self.hang_timeout_s)
        worker_group._worker_health_check_timeout_s = silence_s  # Ray reads it from an environment all gangs share
        self._processes = {
            worker.distributed_context.world_rank: worker.metadata for worker in worker_group.get_workers()
        }

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Raise what a rank raised if it is final; else let Ray restart the gang, within its budget."""
        errors: dict[int, Exception] = worker_group_status.errors
        if not errors:
            return
        statuses = worker_group_status.worker_statuses
        traces = "\n".join(f"rank {rank}: {statuses[rank].error}" for rank in errors)
        final = [error for error in errors.values() if isinstance(error, VitpipeError)]
        if final:
            worst = gravest(final)
            worst.add_note(traces)
            raise worst
        self._count(errors, worker_group_status.has_preempted_worker())
        lost = {rank for rank, error in errors.items() if _gone(error)}
        reasons = self._lack_of_memory(errors) if lost else frozenset(map(_reason, errors.values()))
        again = reasons.intersection(self.notes.read().reasons)  # the other ranks name another port every time
        if again:
            found = f"the same failure twice: {'; '.join(sorted(again))}"
            repeated = StageError(f"run {self.job.node}", found, _SMALLER if lost else _LOOK)
            repeated.add_note(traces)
            raise repeated
        self.notes.note(reasons=tuple(sorted(reasons)))
        silent = {rank for rank in lost if isinstance(errors[rank], WorkerHealthCheckTimeoutError)}
        self._end_hung(set(statuses) - lost, silent)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """While no ranks run, check whether someone wants us to stop, and whether the machines are still there."""
        if isinstance(current_state, PreemptingState) and not isinstance(previous_state, PreemptingState):
            nodes = ", ".join(current_state.preemption_info.preempted_node_ids)
            metrics.NodeMetrics(self.job.run, self.job.node).inc("preemptions_total")
            self.job.tell("preempted", f"{nodes} will be taken away: the ranks commit and start again (not charged)")
        settled = (RunningState, PreemptingState, ShuttingDownState, ErroredState)
        if isinstance(current_state, settled) or current_state.is_terminal():
            return
        self.job.ask_to_stop()
        self.patience.check()
        if isinstance(current_state, ReschedulingState) and not isinstance(previous_state, ReschedulingState):
            self._bad_start(current_state.training_failed_error.controller_failure)

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Tell of a new number of ranks: with `workers: [least, most]` Ray looks for more machines every minute."""
        before, after = len(self._processes), resize_decision.num_workers
        if self._processes and before != after:
            self.job.tell("resized", f"{before} ranks become {after}: they start again from the last committed step")

    def _end_hung(self, living: set[int], silent: set[int]) -> None:
        """Write what every rank was doing into its log, which shows where a hang is; kill ranks that do not answer.

        Ray asks a process to end before it kills it, and keeps its resources taken; a stopped process hears nothing.
        """
        dumps = {self._group.execute_single_async(rank, on_worker.dump_stacks): rank for rank in living}
        _, late = ray.wait(list(dumps), num_returns=len(dumps), timeout=STACKS_S) if dumps else ([], [])
        silent = silent | {dumps[one] for one in late}
        found = (self._processes[rank] for rank in silent if rank in self._processes)
        ends = [_on_its_machine(process, on_worker.end_silent) for process in found]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=END_S)

    def _lack_of_memory(self, errors: dict[int, Exception]) -> frozenset[str]:
        """Describe, with the step, losses by Ray's memory monitor: those that would come again.

        Other losses never count as the same twice. Ray has one text for a crash by SIGSEGV, the kernel's out-of-memory
        killer, SIGKILL and an exit, also on a machine that is shutting down: two at one step may be chance.
        """
        ended = [rank for rank, error in errors.items() if _gone(error) and out_of_memory(error)]
        places = {place for rank in ended if (place := self._place_of_death(rank))}
        return frozenset(f"out of memory, ended by Ray before its machine was ({place})" for place in places)

    def _place_of_death(self, rank: int) -> str | None:
        """Ask the machine of a dead process for the step that it noted; None when the machine does not answer."""
        process = self._processes.get(rank)
        if process is None:
            return None
        try:
            return str(ray.get(_on_its_machine(process, on_worker.last_reached), timeout=END_S))
        except RayError as error:
            log.warning("the machine of rank %s does not tell its last step: %s", rank, error)
            return None

    def _count(self, errors: dict[int, Exception], preempted: bool) -> None:
        failures = self.notes.read().failures
        if not preempted:
            failures = self.notes.note(failures=failures + 1).failures
        numbers = metrics.NodeMetrics(self.job.run, self.job.node)
        numbers.inc("preemptions_total" if preempted else "restarts_total")
        charge = "a preemption, not charged" if preempted else f"failure {failures} of {self.max_failures + 1}"
        ranks = "; ".join(f"rank {rank} ({self._place(rank)}): {in_words(error)}" for rank, error in errors.items())
        self.job.tell("preempted" if preempted else "rank_lost", f"{ranks} ({charge})")

    def _place(self, rank: int) -> str:
        process = self._processes.get(rank)
        return f"{process.hostname}, pid {process.pid}" if process else "place unknown"

    def _bad_start(self, error: Exception) -> None:
        """Count a start that failed, and give up after too many; waiting for busy machines is no failure."""
        if "Timeout" in type(error).__name__:
            return
        free(self.notes.read().places)
        self._bad_starts += 1
        if self._bad_starts > self.max_failures:
            found = f"failed {self._bad_starts} times: {error}"
            raise StageError(f"start the ranks of {self.job.node}", found, "see the workers' logs") from error


def _on_its_machine(process: Any, fn: Callable[[int], Any]) -> Any:
    """Call `fn(pid)` on the machine of a process of the gang; a reference to what it returns."""
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    return ray.remote(fn).options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(process.pid)


def _gone(error: Exception) -> bool:
    """Whether the process or its machine is dead or silent, as opposed to an exception raised in it."""
    return isinstance(error, WorkerHealthCheckFailedError | WorkerHealthCheckTimeoutError)


def _reason(error: Exception) -> str:
    """Describe an error with its notes, which name the step in which it came."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes}"
