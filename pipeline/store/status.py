"""What runs, what waits and why: from the store alone, so that it answers when the cluster is gone.

Knows the files that a driver leaves (spec, lease, records, progress, errors); asks no process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import IntegrityError, NotFound, Stopped, VitpipeError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.lease_state import LeaseState, read_stop
from vitpipe.infra.progress import read_progress
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.node_run import ERROR
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.pipeline.store.accepted_spec import accepted_graph
from vitpipe.pipeline.store.attempts import Attempt, digests, read_attempt
from vitpipe.pipeline.store.pulse import Pulse
from vitpipe.pipeline.store.records import Committed, read_committed
from vitpipe.pipeline.store.soundness import fence_of
from vitpipe.stages.record import damaged

T = TypeVar("T")
State = Literal["committed", "running", "waiting", "failed", "blocked"]


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


def read_status(run: Store, pulse: Pulse | None = None) -> RunStatus:
    """The status of the run in that folder, whose driver `pulse` has perhaps watched before.

    UsageError when no run was ever accepted there; IntegrityError when its spec or its lease is damaged.
    """
    return status_of(run, accepted_graph(run, "show the status of"), pulse)


def status_of(run: Store, graph: Graph, pulse: Pulse | None = None) -> RunStatus:
    """The status of a graph's nodes in that folder; may wait for a beat of another machine's driver."""
    sign = (pulse or Pulse(run)).look()
    left = by_key(lambda id: _left(run.child(id)), graph.nodes)
    view = _View(sign.lease, sign.alive, sign.silence, left, _stop(run, sign.lease))
    nodes: dict[str, NodeStatus] = {}
    for id, node in graph.nodes.items():
        found = view.node(node, [nodes[up] for up in graph.upstream(id)])
        notes = [str(error) for error in left[id].damaged if str(error) != found.why]
        nodes[id] = replace(found, why=" ".join([f"{found.why};" if notes else found.why, *notes]))
    return RunStatus(run.uri, view.overall(tuple(nodes.values())), tuple(nodes.values()))


@dataclass(frozen=True)
class _Left:
    """What drivers left in a node's folder."""

    uri: str
    committed: Committed | None
    progress: Mapping[str, Any] | None
    attempt: Attempt | None
    """The one that the progress speaks of, where it is newer than the record."""
    error: VitpipeError | None
    """With which that attempt ended."""
    damaged: tuple[IntegrityError, ...] = ()
    """What is there and tells nothing: one such file of one node does not keep the others from being shown."""
    unreadable: IntegrityError | None = None
    """Of these, the record's: no run goes on before it is mended."""


@dataclass(frozen=True)
class _View:
    lease: LeaseState | None
    alive: bool
    silence: str
    left: Mapping[str, _Left]
    stop: str

    def node(self, node: Node, upstream: Sequence[NodeStatus]) -> NodeStatus:
        left = self.left[node.id]
        if left.unreadable:
            return NodeStatus(node.id, "failed", str(left.unreadable))
        missing = [up.node for up in upstream if up.state != "committed"]
        if left.committed and not missing and self._stands(node, left):
            return NodeStatus(
                node.id, "committed", f"{left.committed.record.started} by {left.committed.record.attempt}"
            )
        if lost := self._lost(node, left):
            return NodeStatus(node.id, "failed", str(lost))
        current = self._is_current(left)
        error = left.error if left.error and (current or not self.alive) else None
        if error and not isinstance(error, Stopped):
            return NodeStatus(node.id, "failed", str(error))
        if self.alive and current and left.progress and not error:
            return _running(node.id, left.progress)
        broken = [up.node for up in upstream if up.state in ("failed", "blocked")]
        if broken:
            return NodeStatus(node.id, "blocked", f"needs {', '.join(broken)}, which failed")
        if missing:
            return NodeStatus(node.id, "waiting", f"needs {', '.join(missing)} first")
        return NodeStatus(node.id, "waiting", "its turn comes" if self.alive else self._idle(left))

    def _lost(self, node: Node, left: _Left) -> IntegrityError | None:
        """Its record, where its attempt says that it was committed, or a node took it; not while it is made anew."""
        if left.committed or not left.attempt or (self.alive and self._is_current(left) and not left.attempt.committed):
            return None
        takers = [
            id
            for id, other in self.left.items()
            for refs in (other.committed.record.inputs.values() if other.committed else ())
            if any(ref.uri == left.uri and ref.fingerprint == left.attempt.fingerprint for ref in refs)
        ]
        by = (
            f"{left.attempt.name} committed one"
            if left.attempt.committed
            else f"{takers[0]} took one"
            if takers
            else ""
        )
        return damaged(left.uri, f"it is lost, and {by}", node.id) if by else None

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
        if left.attempt and not self.alive and left.attempt.fence > fence_of(record) and not left.attempt.committed:
            return False  # one of other data, which failed or was killed: who finds an equal record marks that
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

    def _idle(self, left: _Left) -> str:
        do = "run it again to go on"
        if left.committed and left.attempt:
            do = f"{left.attempt.name} was to replace {left.committed.record.attempt} and came to no end; {do}"
        if self.lease and self.lease.holder:
            return f"nobody runs it: {self.lease.holder} {self.silence}; {do}"
        return f"nobody runs it{f' ({self.stop})' if self.stop else ''}; {do}"


def _running(id: str, progress: Mapping[str, Any]) -> NodeStatus:
    step, total = progress.get("step"), progress.get("total")
    why = str(progress.get("note") or (f"{progress.get('unit', 'steps')} {step} of {total}" if total else "begins"))
    return NodeStatus(id, "running", why, step, total, tuple(progress.get("ranks") or ()), progress)


def _stop(run: Store, lease: LeaseState | None) -> str:
    """Why its holder was asked to end, where that is known."""
    try:
        return (lease is not None and read_stop(run, lease.fence)) or ""
    except IntegrityError as error:
        return f"why is not known: {error.asked}: {error.found}"


def _left(node: Store) -> _Left:
    flaws: list[IntegrityError] = []

    def sound(read: Callable[[], T | None]) -> T | None:
        try:
            return read()
        except IntegrityError as error:
            flaws.append(error)
            return None

    committed = sound(lambda: read_committed(node))
    unreadable = flaws[0] if flaws else None
    progress = sound(lambda: read_progress(node))
    if progress is None:
        return _Left(node.uri, committed, None, None, None, tuple(flaws), unreadable)
    name = str(progress["attempt"]).partition(".")[0]  # of a gang's restarts the driver writes beside the first
    superseded = committed is not None and committed.record.attempt.partition(".")[0] == name
    attempt = None if superseded else sound(lambda: read_attempt(node, name))
    error = sound(lambda: _read_error(node, name))
    if committed is None and attempt is not None and attempt.committed:
        committed = sound(lambda: read_committed(node))  # a mark is written after its record
    return _Left(node.uri, committed, progress, attempt, error, tuple(flaws), unreadable)


def _read_error(node: Store, attempt: str) -> VitpipeError | None:
    """With what an attempt ended, as its driver left it. IntegrityError when that cannot be read."""
    where = f"{attempt}/{ERROR}"
    try:
        fields = parse_object(node.read(where))
        said = (str(fields["asked"]), str(fields["found"]), str(fields["do"]))
        return Stopped(*said) if fields["code"] == Stopped.code else VitpipeError(*said)
    except NotFound:
        return None
    except (ValueError, TypeError, KeyError) as error:
        do = "run the same command again: what is wrong comes again, or is gone"
        raise IntegrityError(f"read {node.uri}/{where}", f"it is damaged: {error!r}", do) from error
