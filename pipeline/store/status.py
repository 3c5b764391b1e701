"""What runs, what waits and why: from the store alone, so that it answers when the cluster is gone.

Knows the files that a driver leaves (spec, lease, records, progress, errors); asks no process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import IntegrityError, NotFound, Stopped, UsageError, VitpipeError
from vitpipe.infra.json_object import fields_of, parse_object
from vitpipe.infra.lease_state import LeaseState, read_lease, read_stop
from vitpipe.infra.progress import PROGRESS, RESTARTING, Restarting, read_progress, read_restarting
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.pipeline.store.accepted_spec import accepted_graph
from vitpipe.pipeline.store.attempts import COMMITTED, ERROR, Attempt, digests, read_attempt
from vitpipe.pipeline.store.contents import NodeContents, list_run
from vitpipe.pipeline.store.copies import Found, records_in_run
from vitpipe.pipeline.store.node_status import NodeStatus, RunStatus, committed_status, running_status
from vitpipe.pipeline.store.pulse import Pulse, Sign
from vitpipe.pipeline.store.records import Committed, read_committed
from vitpipe.pipeline.store.soundness import fence_of
from vitpipe.pipeline.store.submitted import SUBMITTED, Submission, read_submission
from vitpipe.stages.record import damaged

T = TypeVar("T")
SUBMITTED_STATE = "submitted"


def read_status(run: Store, pulse: Pulse | None = None) -> RunStatus:
    """Read the status of the run in that folder; `pulse` may have watched its driver before.

    UsageError when no run was ever accepted there, nor submitted; IntegrityError when its spec or its lease is damaged.
    """
    try:
        graph = accepted_graph(run, "show the status of")
    except UsageError:
        waiting = read_submission(run)
        if waiting is None or not waiting.awaits(read_lease(run)):
            raise
        nodes = tuple(NodeStatus(id, "waiting", "its run has not begun") for id in waiting.nodes)
        return RunStatus(run.uri, SUBMITTED_STATE, nodes, waiting, str(waiting))
    return status_of(run, graph, pulse)


def status_of(run: Store, graph: Graph, pulse: Pulse | None = None) -> RunStatus:
    """Read the status of a graph's nodes in that folder; may wait for a beat of another machine's driver."""
    sign = (pulse or Pulse(run)).look()
    seen = list_run(run, brief=True)
    records = records_in_run(run, seen, graph.nodes)
    left = by_key(lambda id: _left(run.child(id), seen.of(id), records.get(id), sign), graph.nodes)
    view = _View(sign.lease, sign.alive, sign.silence, left, "" if sign.alive else _stop(run, sign.lease))
    nodes: dict[str, NodeStatus] = {}
    for id, node in graph.nodes.items():
        found = view.node(node, [nodes[up] for up in graph.upstream(id)])
        notes = [str(error) for error in left[id].damaged if str(error) != found.why]
        nodes[id] = replace(found, why=" ".join([f"{found.why};" if notes else found.why, *notes]))
    state = view.overall(tuple(nodes.values()))
    waiting, note = _submission(run) if SUBMITTED in seen.loose and state != "committed" else (None, "")
    if waiting is None or not waiting.awaits(sign.lease):
        return RunStatus(run.uri, state, tuple(nodes.values()), None, note if waiting is None else "")
    return RunStatus(run.uri, state if sign.alive else SUBMITTED_STATE, tuple(nodes.values()), waiting, note)


def _submission(run: Store) -> tuple[Submission | None, str]:
    """Read what was submitted and what to say of it, which may be that it cannot be read."""
    try:
        found = read_submission(run)
    except IntegrityError as error:
        return None, str(error)
    return found, str(found) if found else ""


@dataclass(frozen=True)
class _Left:
    """What drivers left in a node's folder."""

    uri: str
    committed: Committed | None
    progress: Mapping[str, Any] | None
    attempt: Attempt | None
    """The attempt that the progress is of, where that is newer than the record."""
    error: VitpipeError | None
    """The error that this attempt ended with."""
    restarting: Restarting | None = None
    """That the ranks which the progress is of are lost."""
    damaged: tuple[IntegrityError, ...] = ()
    """Files that cannot be read: one such file of one node does not keep the others from being shown."""
    unreadable: IntegrityError | None = None
    """The record among these: no run goes on before it is mended."""


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
            return committed_status(node.id, left.committed)
        if lost := self._lost(node, left):
            return NodeStatus(node.id, "failed", str(lost))
        current = self._is_current(left)
        error = left.error if left.error and (current or not self.alive) else None
        if error and not isinstance(error, Stopped):
            return NodeStatus(node.id, "failed", str(error))
        if self.alive and current and left.progress and not error:
            return running_status(node.id, left.progress, left.restarting)
        broken = [up.node for up in upstream if up.state in ("failed", "blocked")]
        if broken:
            return NodeStatus(node.id, "blocked", f"needs {', '.join(broken)}, which failed")
        if missing:
            return NodeStatus(node.id, "waiting", f"needs {', '.join(missing)} first")
        return NodeStatus(node.id, "waiting", "its turn comes" if self.alive else self._idle(left))

    def _lost(self, node: Node, left: _Left) -> IntegrityError | None:
        """The node's record is lost: its attempt's mark or a node that took it says so. Not while it is made anew."""
        if left.committed or not left.attempt:
            return None
        if left.attempt.committed:
            return damaged(left.uri, f"it is lost, and {left.attempt.name} committed one", node.id)
        if self.alive and self._is_current(left):
            return None
        takers = [
            id
            for id, other in self.left.items()
            for refs in (other.committed.record.inputs.values() if other.committed else ())
            if any(ref.uri == left.uri and ref.fingerprint == left.attempt.fingerprint for ref in refs)
        ]
        return damaged(left.uri, f"it is lost, and {takers[0]} took one", node.id) if takers else None

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
        """Whether the record is up to date: nothing newer was begun, and its inputs are still those it had."""
        assert left.committed
        record = left.committed.record
        if left.attempt and self.alive and self._is_current(left):
            return False  # a driver is making it anew, of other data
        if left.attempt and not left.attempt.fits(record.fingerprint, record.inputs):
            return False
        if left.attempt and not self.alive and left.attempt.fence > fence_of(record) and not left.attempt.committed:
            return False  # it took other data, and failed or was killed: one that finds an equal record marks that
        given = {
            name: tuple(found.ref for ref in refs if not is_uri(ref) and (found := self.left[ref].committed))
            for name, refs in node.needs.items()
            if not any(is_uri(ref) for ref in refs)
        }
        taken = {name: refs for name, refs in record.inputs.items() if name in given}
        return digests(given) == digests(taken)

    def _is_current(self, left: _Left) -> bool:
        """Whether the node's last progress is of the driver that holds, or last held, the run."""
        return left.progress is not None and self.lease is not None and left.progress["fence"] == self.lease.fence

    def _idle(self, left: _Left) -> str:
        do = "run it again to go on"
        if left.committed and left.attempt:
            do = f"{left.attempt.name} was to replace {left.committed.record.attempt} and came to no end; {do}"
        if self.lease and self.lease.holder:
            return f"nobody runs it: {self.lease.holder} {self.silence}; {do}"
        return f"nobody runs it{f' ({self.stop})' if self.stop else ''}; {do}"


def _stop(run: Store, lease: LeaseState | None) -> str:
    """Say why the run's holder was asked to end, where that is known."""
    try:
        return (lease is not None and read_stop(run, lease.fence)) or ""
    except IntegrityError as error:
        return f"why is not known: {error.in_brief}"


def _left(node: Store, seen: NodeContents, record: Found, sign: Sign) -> _Left:
    """Read what a listing shows of a node and its record does not say: nothing of one that nobody touched since."""
    flaws: list[IntegrityError] = []

    def sound(read: Callable[[], T | None]) -> T | None:
        try:
            return read()
        except IntegrityError as error:
            flaws.append(error)
            return None

    if isinstance(record, UsageError):
        raise record
    unreadable = record if isinstance(record, IntegrityError) else None
    committed = None if isinstance(record, IntegrityError) else record
    flaws += [unreadable] if unreadable else []
    touched = committed is None or _family(committed.record.attempt) != seen.newest
    progress = sound(lambda: read_progress(node)) if PROGRESS in seen.signs and touched else None
    if progress is None:
        return _Left(node.uri, committed, None, None, None, None, tuple(flaws), unreadable)
    name = _family(str(progress["attempt"]))  # the driver writes beside the first of a gang's restarts
    files = seen.paths().get(name, ())
    superseded = committed is not None and _family(committed.record.attempt) == name
    mark = COMMITTED in files
    runs = sign.alive and sign.lease is not None and progress["fence"] == sign.lease.fence
    known = superseded or (runs and committed is None and not mark)  # nothing is asked of it then
    attempt = None if known else sound(lambda: read_attempt(node, name, mark))
    error = sound(lambda: _read_error(node, name)) if ERROR in files else None
    if committed is None and mark:
        committed = sound(lambda: read_committed(node))  # a mark is written after its record
    restarting = sound(lambda: read_restarting(node, progress)) if RESTARTING in seen.signs else None
    return _Left(node.uri, committed, progress, attempt, error, restarting, tuple(flaws), unreadable)


def _family(attempt: str) -> str:
    """Name the attempt without its gang's restart number."""
    return attempt.partition(".")[0]


def _read_error(node: Store, attempt: str) -> VitpipeError | None:
    """Read what an attempt ended with, as its driver left it. IntegrityError when that cannot be read."""
    where, do = f"{attempt}/{ERROR}", "run the same command again: what is wrong comes again, or is gone"
    with suppress(NotFound), fields_of(f"{node.uri}/{where}", do):
        fields = parse_object(node.read(where))
        said = (str(fields["asked"]), str(fields["found"]), str(fields["do"]))
        return Stopped(*said) if fields["code"] == Stopped.code else VitpipeError(*said)
    return None
