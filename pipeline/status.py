"""What runs, what waits and why: from the store alone, so that it answers when the cluster is gone.

Knows the files that a driver leaves (spec, lease, records, progress, errors); asks no process.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from infra.errors import NotFound, Stopped, UsageError, VitpipeError
from infra.lease_state import LeaseState, read_lease, read_stop
from infra.progress import read_progress
from infra.storage.store import Store
from pipeline.attempts import Attempt, digests, read_attempt
from pipeline.graph import Graph, Node, is_uri
from pipeline.node_run import ERROR
from pipeline.records import Committed, read_committed
from pipeline.runner import SPEC
from pipeline.spec import load

State = Literal["committed", "running", "waiting", "failed", "blocked"]

SILENT_S = 30.0
"""A holder that has not beaten for so long is not believed to be alive (machines' clocks may differ a little)."""

_READERS = 16


@dataclass(frozen=True)
class NodeStatus:
    node: str
    state: State
    why: str
    step: int | None = None
    total_steps: int | None = None
    ranks: tuple[Mapping[str, Any], ...] = ()
    progress: Mapping[str, Any] | None = None
    """All that the running attempt last said of itself."""


@dataclass(frozen=True)
class RunStatus:
    run: str
    state: str
    """`committed`, `running`, `failed`, `stopped` (resumable) or `interrupted` (its driver fell silent)."""
    nodes: tuple[NodeStatus, ...]

    def to_json(self) -> dict[str, Any]:
        nodes = [{key: value for key, value in asdict(node).items() if key != "progress"} for node in self.nodes]
        return {"run": self.run, "state": self.state, "nodes": nodes}


def read_status(run: Store) -> RunStatus:
    """The status of the run in that folder. UsageError when no run was ever accepted there."""
    try:
        text = run.read(SPEC).decode()
    except NotFound:
        raise UsageError(
            f"show the status of {run.uri}", "no run was ever started there", "check the store and the name"
        ) from None
    return status_of(run, load(text, env={}).graph)


def status_of(run: Store, graph: Graph) -> RunStatus:
    """The status of a graph's nodes in that folder."""
    lease = read_lease(run)
    with ThreadPoolExecutor(_READERS) as pool:
        left = dict(zip(graph.nodes, pool.map(lambda id: _left(run.child(id)), graph.nodes), strict=True))
    view = _View(lease, _alive(lease), left, (lease is not None and read_stop(run, lease.fence)) or "")
    nodes: dict[str, NodeStatus] = {}
    for id, node in graph.nodes.items():
        nodes[id] = view.node(node, [nodes[up] for up in graph.upstream(id)])
    return RunStatus(run.uri, view.overall(tuple(nodes.values())), tuple(nodes.values()))


@dataclass(frozen=True)
class _Left:
    """What drivers left in a node's folder."""

    committed: Committed | None
    progress: Mapping[str, Any] | None
    attempt: Attempt | None
    """The one that the progress speaks of, where it is newer than the record."""
    error: Mapping[str, Any] | None


@dataclass(frozen=True)
class _View:
    lease: LeaseState | None
    alive: bool
    left: Mapping[str, _Left]
    stop: str

    def node(self, node: Node, upstream: Sequence[NodeStatus]) -> NodeStatus:
        left = self.left[node.id]
        missing = [up.node for up in upstream if up.state != "committed"]
        if left.committed and not missing and self._stands(node, left):
            return NodeStatus(
                node.id, "committed", f"{left.committed.record.started} by {left.committed.record.attempt}"
            )
        current = self._is_current(left)
        error = left.error if left.error and (current or not self.alive) else None
        if error and error["code"] != Stopped.code:
            return NodeStatus(node.id, "failed", str(VitpipeError(error["asked"], error["found"], error["do"])))
        if self.alive and current and left.progress and not error:
            return _running(node.id, left.progress)
        broken = [up.node for up in upstream if up.state in ("failed", "blocked")]
        if broken:
            return NodeStatus(node.id, "blocked", f"needs {', '.join(broken)}, which failed")
        if missing:
            return NodeStatus(node.id, "waiting", f"needs {', '.join(missing)} first")
        return NodeStatus(node.id, "waiting", "its turn comes" if self.alive else self._idle())

    def overall(self, nodes: Sequence[NodeStatus]) -> str:
        states = {node.state for node in nodes}
        if states <= {"committed"}:
            return "committed"
        if self.alive:
            return "running"
        if "failed" in states:
            return "failed"
        return "interrupted" if self.lease and self.lease.holder else "stopped"

    def _stands(self, node: Node, left: _Left) -> bool:
        """Whether the record is the last word: nothing newer was begun, and its inputs are still those it had."""
        assert left.committed
        record = left.committed.record
        if left.attempt and self.alive and self._is_current(left):
            return False  # a driver makes it anew, of other data
        if left.attempt and not left.attempt.fits(record.fingerprint, record.inputs):
            return False
        given = {
            name: tuple(found.ref for ref in refs if not is_uri(ref) and (found := self.left[ref].committed))
            for name, refs in node.needs.items()
            if not any(is_uri(ref) for ref in refs)
        }
        taken = {name: refs for name, refs in record.inputs.items() if name in given}
        return digests(given) == digests(taken)

    def _is_current(self, left: _Left) -> bool:
        """Whether what was last heard of the node is of the driver that holds, or last held, the run."""
        return left.progress is not None and self.lease is not None and left.progress["fence"] == self.lease.fence

    def _idle(self) -> str:
        if self.lease and self.lease.holder:
            silent_s = time.time() - self.lease.time
            return f"nobody runs it: {self.lease.holder} was last heard of {silent_s:.0f} s ago; run it again to go on"
        return f"nobody runs it{f' ({self.stop})' if self.stop else ''}; run it again to go on"


def _committed(id: str, committed: Committed, progress: Mapping[str, Any] | None) -> NodeStatus:
    record, last = committed.record, progress or {}
    ours = str(last.get("attempt", "")).partition(".")[0] == record.attempt.partition(".")[0]
    done = (last.get("step"), last.get("total")) if ours and last.get("total") else (None, None)
    return NodeStatus(id, "committed", f"{record.started} by {record.attempt}", *done)


def _running(id: str, progress: Mapping[str, Any]) -> NodeStatus:
    step, total = progress.get("step"), progress.get("total")
    why = str(progress.get("note") or (f"{progress.get('unit', 'steps')} {step} of {total}" if total else "begins"))
    return NodeStatus(id, "running", why, step, total, tuple(progress.get("ranks") or ()), progress)


def _alive(lease: LeaseState | None) -> bool:
    if lease is None or lease.holder is None or lease.holder.provably_dead():
        return False
    return time.time() - lease.time < SILENT_S


def _left(node: Store) -> _Left:
    committed, progress = read_committed(node), read_progress(node)
    if progress is None:
        return _Left(committed, None, None, None)
    name = str(progress["attempt"]).partition(".")[0]  # of a gang's restarts the driver writes beside the first
    superseded = committed is not None and committed.record.attempt.partition(".")[0] == name
    attempt = None if superseded else read_attempt(node, name)
    try:
        error = json.loads(node.read(f"{name}/{ERROR}"))
    except NotFound:
        error = None
    return _Left(committed, progress, attempt, error)
