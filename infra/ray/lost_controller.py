"""When the process that leads a gang is lost: a loss like any other, if the cluster lives and no rank of the gang does.

Ray Train has one such process for each gang, and does not restart it when a signal or Ray's memory monitor ends it.
"""

from dataclasses import dataclass

import ray
from ray import PlacementGroupID
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra import metrics
from vitpipe.infra.errors import Lost, StorageError
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.gang_notes import GangNotes, Process
from vitpipe.infra.work import Job

END_S = 90.0
"""Time for a task of ours to start on a rank's machine and see the rank's end."""
TRIES = 3
"""Tries of such a task: what ended the leader may end it too."""

_GO_ON = "run the same command again, on a new cluster if this one lost its head: it goes on from the last commit"


@dataclass(frozen=True)
class Loss:
    """A loss after which Ray Train does not start the gang again."""

    what: str
    """`the process that leads the ranks`."""
    error: RayError


@dataclass(frozen=True)
class Losses:
    """Losses of one gang's controller, which its driver counts."""

    job: Job
    asked: str
    """For messages: `run 2 ranks of backbone`."""
    max_failures: int
    notes: GangNotes

    def count(self, loss: Loss) -> None:
        """Charge it, and make sure that no earlier rank lives: the gang that is started next must be alone.

        Errors: Stopped when someone wants us to end; Lost when the cluster is gone, a rank may live on, or the losses
        are spent.
        """
        found = in_words(loss.error)
        if gone := _gone():
            raise Lost(self.asked, f"the cluster is gone ({gone}): {found}", _GO_ON) from loss.error
        self.job.ask_to_stop()
        state = self.notes.read()
        free(state.places)
        for rank in state.ranks:
            self._end(rank)
        failures = self.notes.note(failures=state.failures + 1, reasons=(), ranks=()).failures
        metrics.NodeMetrics(self.job.run, self.job.node).inc("restarts_total")
        charge = f"failure {failures} of {self.max_failures + 1}"
        self.job.tell("rank_lost", f"{loss.what} was lost: {found} ({charge})")
        if failures > self.max_failures:
            last = f"lost {failures} times, last {loss.what}: {found}"
            raise Lost(self.asked, last, "look at the machines, then run again") from loss.error

    def _end(self, rank: Process) -> None:
        """End a rank; return once it is gone, or its machine is."""
        there = NodeAffinitySchedulingStrategy(rank.node, soft=False)
        task = ray.remote(on_worker.end).options(num_cpus=0, max_retries=TRIES, scheduling_strategy=there)
        try:
            ray.get(task.remote(rank.who), timeout=END_S)
        except RayError as error:
            if rank.node in _machines():
                found = f"{rank.who}, a rank whose leader is lost, may still live: {in_words(error)}"
                raise Lost(self.asked, found, "end it, then run the same command again") from error


def free(places: str) -> None:
    """Give back the machines that a gang without a leader held, and end whatever runs there.

    Ray Train leaves them taken, and the next start waiting for ever, when a rank was lost after its process had started
    and before training had.
    """
    if places:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(places))))


def _machines() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _gone() -> str | None:
    """Say why no other gang can be started here, or None."""
    context = ray.get_runtime_context()
    try:
        ray_auth.require_answer(context.gcs_address)
        return None if context.get_node_id() in _machines() else "this machine is no part of it any more"
    except (StorageError, RayError) as error:
        return getattr(error, "found", None) or in_words(error)
