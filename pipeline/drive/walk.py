"""Walk the plan: a thread for every ready node, siblings go on when a branch fails, nobody starts after a stop.

Knows in which order nodes run and how they end; what a node does is in `node_run`.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import assert_never

from vitpipe.infra.errors import LeaseLost, Refused, Stopped, StorageError, VitpipeError, gravest
from vitpipe.infra.metrics import STATES, NodeMetrics
from vitpipe.pipeline.drive.critical_path import CriticalPath
from vitpipe.pipeline.drive.driver import Driver
from vitpipe.pipeline.drive.foresight import Foresight
from vitpipe.pipeline.drive.node_run import NodeRun, as_vitpipe_error
from vitpipe.pipeline.plan.planned import Plan, StoreFacts
from vitpipe.pipeline.spec.graph import Graph, is_uri
from vitpipe.pipeline.store.records import Committed
from vitpipe.stages.estimates import Known

log = logging.getLogger(__name__)

_HEAR_S = 0.5
"""A signal that comes just before the main thread falls asleep does not wake it, so it looks this often."""


@dataclass(frozen=True)
class Ended:
    """A node's thread is done."""

    node: str
    committed: Committed | None = None
    error: VitpipeError | None = None


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants us to end: a signal's name."""

    reason: str


def nothing() -> None:
    """Do nothing."""


Inbox = SimpleQueue[Ended | StopRequested | VitpipeError]
"""What the main thread waits for. Reentrant, so that a signal handler may put into it."""


@dataclass
class Walk:
    """The walk of one driver over one accepted plan."""

    driver: Driver
    graph: Graph
    facts: StoreFacts
    plan: Plan
    inbox: Inbox
    on_commit: Callable[[], None] = nothing
    """Called when a node has committed."""
    committed: dict[str, Committed] = field(default_factory=dict)
    errors: dict[str, VitpipeError] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _stopping: str | None = None
    _deadline: float = math.inf

    def __post_init__(self) -> None:
        known = Known(gpus=self.driver.clusters.gpus())
        self._foresight = Foresight(self.graph, self.plan, self.facts, known)
        self._path = CriticalPath(self.graph, self.plan, self._foresight, self.driver.clusters.pace)

    def run(self) -> Mapping[str, Committed]:
        """Run everything due; return all records of the graph.

        Raises the gravest error of the nodes that failed, LeaseLost at once, Stopped when it was asked to end.
        """
        self.committed = {one.node: self.facts.records[one.node] for one in self.plan.having("reuse") if not one.adopts}
        for node in self.graph.nodes:
            self._show(node, "committed" if node in self.committed else "waiting")
        self._start_ready()
        while self._running:
            self._hear(self._next())
        worst = gravest(list(self.errors.values())) if self.errors else None
        if worst and not (self._stopping and isinstance(worst, Stopped)):
            raise worst
        if len(self.committed) < len(self.graph.nodes):
            raise self._stopped()
        return self.committed

    def _next(self) -> Ended | StopRequested | VitpipeError:
        while (left := self._deadline - time.monotonic()) > 0:
            try:
                return self.inbox.get(timeout=min(left, _HEAR_S))
            except Empty:
                continue
        waiting = ", ".join(sorted(self._running))
        log.warning("%s did not end within %g s of being asked to", waiting, self.driver.options.stop_grace_s)
        raise self._stopped()

    def _hear(self, message: Ended | StopRequested | VitpipeError) -> None:
        match message:
            case Ended():
                self._ended(message)
            case StopRequested():
                self._asked(message.reason)
            case Stopped():
                self._stop(message.found)
            case Refused():
                self.driver.emit("", "refused", self._refusal(message))
            case VitpipeError():
                raise message  # the lease is lost, or cannot be kept: leave everything as it is
            case _:
                assert_never(message)

    def _ended(self, message: Ended) -> None:
        self._running.discard(message.node)
        if message.committed:
            self.committed[message.node] = message.committed
            self.on_commit()
            self._show(message.node, "committed")
        elif message.error:
            if isinstance(message.error, LeaseLost):
                raise message.error
            self._failed(message.node, message.error)
        self._start_ready()

    def _failed(self, node: str, error: VitpipeError) -> None:
        self.errors[node] = error
        self._show(node, "waiting" if isinstance(error, Stopped) else "failed")
        for id in self.graph.downstream({node}) - {node}:
            self._show(id, "blocked")

    def _refusal(self, error: Refused) -> str:
        """Say what stands, and until when the run waits for its credentials to be right again."""
        steps = [f"step {step} of {node}" for node, step in self.driver.commits.items() if node in self._running]
        last = ", ".join([*steps, *self.committed]) or "nothing yet"
        until = f"unless they are taken again, the run ends {self.driver.options.timing.refused_s:g} s from now with 7"
        return f"the store refuses the credentials of this driver: {error.found}; committed: {last}; {until}"

    def _asked(self, reason: str) -> None:
        if self._stopping:
            raise self._stopped()  # asked twice: abandon what runs
        self._stop(reason)
        try:
            self.driver.lease.request_stop(reason)
        except StorageError as error:
            log.warning("ranks and tasks cannot be told to end: %s", error)
            raise self._stopped() from error

    def _stop(self, reason: str) -> None:
        self._stopping = reason
        NodeMetrics(self.driver.name, "").set("driver_ended_fence", self.driver.lease.fence)
        self._deadline = time.monotonic() + self.driver.options.stop_grace_s

    def _stopped(self) -> Stopped:
        found = self._stopping or "stopped"
        return Stopped(f"run {self.driver.run.uri}", found, "run the same command again to go on")

    def _start_ready(self) -> None:
        chains = self._path.chains(self.committed)
        self.driver.clusters.rank(chains)
        for id in sorted(chains, key=lambda id: -chains[id]):
            begun = id in self._running or id in self.committed or id in self.errors
            if self._stopping or begun or any(up not in self.committed for up in self.graph.upstream(id)):
                continue
            if not self._in_vain(id):
                self._start(id)

    def _in_vain(self, id: str) -> bool:
        """Whether a training has to wait for what names classes, or is for nodes that these names do not fit."""
        lost = self.graph.downstream(set(self.errors))
        if self._foresight.awaited(id, {*self.committed, *lost}):
            return True
        for node, error in self._foresight.mismatches(id, self.committed):
            self.driver.emit(node, "failed", str(error))
            self._failed(node, error)
        return any(node in self.errors for node in self._foresight.unmatched(id))

    def _start(self, id: str) -> None:
        self._running.add(id)
        self._show(id, "running")
        for name in ("restarts_total", "preemptions_total"):
            NodeMetrics(self.driver.name, id).inc(name, 0.0)
        threading.Thread(target=self._thread, args=(self._node_run(id),), name=f"node-{id}", daemon=True).start()

    def _node_run(self, id: str) -> NodeRun:
        node = self.graph.nodes[id]
        given = {
            name: tuple(self.facts.given(ref) if is_uri(ref) else self.committed[ref] for ref in refs)
            for name, refs in node.needs.items()
        }
        seconds = self._path.seconds(id, self.committed)
        return NodeRun(self.driver, node, self.plan.nodes[id], self.facts.wanted[id], given, seconds)

    def _thread(self, work: NodeRun) -> None:
        try:
            self.inbox.put(Ended(work.node.id, committed=work.run()))
        except BaseException as error:  # whatever it is, the main thread has to hear of it
            if not isinstance(error, VitpipeError):
                log.error("the thread of %s ended with %r", work.node.id, error, exc_info=error)
            self.inbox.put(Ended(work.node.id, error=as_vitpipe_error(error, work.node.id, "the log")))

    def _show(self, node: str, state: str) -> None:
        NodeMetrics(self.driver.name, node).set("stage_state", STATES.index(state))
