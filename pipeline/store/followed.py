"""A run that is looked at again and again: its state and its curves, also before its spec is accepted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.store.accepted_spec import SPEC, accepted_graph
from vitpipe.pipeline.store.curves import CurveReader, NodeCurves
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.pulse import Pulse
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.runs import Run
from vitpipe.pipeline.store.status import SUBMITTED_STATE, status_of
from vitpipe.pipeline.store.submitted import read_submission


@dataclass(frozen=True)
class Look:
    """What a run was when it was looked at."""

    name: str
    uri: str
    state: str
    """As `status` says it; `begun` before its spec is accepted, `unreadable` where that or its lease is damaged."""
    why: str = ""
    graph: Graph | None = None
    status: RunStatus | None = None
    curves: Mapping[str, NodeCurves] = field(default_factory=dict)
    committed: Mapping[str, Committed] = field(default_factory=dict)

    @property
    def lasts(self) -> bool:
        """Whether more may come by itself."""
        return self.state in ("running", "begun", SUBMITTED_STATE)


class FollowedRun:
    """One run, and what was read of it before."""

    def __init__(self, run: Run, name: str = "") -> None:
        """Call it `name` where its own is not enough to tell it from others."""
        self.run, self.name = run, name or run.name
        self._pulse = Pulse(run.store, patient=False)
        self._reader = CurveReader(run.store)
        self._graph: tuple[bytes, Graph] | None = None

    def look(self) -> Look:
        """Look now. StorageError where the store does not answer."""
        try:
            graph = self._accepted(self.run.store)
        except UsageError:
            return self._before()
        except IntegrityError as error:
            return self._without("unreadable", str(error))
        try:
            status = status_of(self.run.store, graph, self._pulse)
            curves = self._reader.read(status)
        except (UsageError, IntegrityError) as error:
            return self._without("unreadable", str(error))
        done = dict(self._reader.committed)
        return Look(self.name, self.run.uri, status.state, status.note, graph, status, curves, done)

    def _before(self) -> Look:
        """Say of a run without a spec whether it waits on a cluster, or its driver has just begun."""
        try:
            waiting = read_submission(self.run.store)
        except IntegrityError as error:
            return self._without("unreadable", str(error))
        if waiting:
            return self._without(SUBMITTED_STATE, str(waiting))
        return self._without("begun", "its spec is not accepted yet")

    def _without(self, state: str, why: str) -> Look:
        return Look(self.name, self.run.uri, state, why)

    def _accepted(self, run: Store) -> Graph:
        try:
            data = run.read(SPEC)
        except NotFound:
            data = b""
        if self._graph is None or self._graph[0] != data:
            self._graph = data, accepted_graph(run, "look at")
        return self._graph[1]


def followed(runs: Sequence[Run]) -> list[FollowedRun]:
    """Follow several runs, by their names, or by their places where two share one. UsageError for one named twice."""
    uris, names = [run.uri for run in runs], [run.name for run in runs]
    if twice := sorted({uri for uri in uris if uris.count(uri) > 1}):
        raise UsageError("look at runs", f"{', '.join(twice)} is named more than once", "name each run once")
    return [FollowedRun(run, _place(run) if names.count(run.name) > 1 else run.name) for run in runs]


def _place(run: Run) -> str:
    """Name a run by its whole place, as a file may be called."""
    return run.uri.partition("://")[2].strip("/").replace("/", "-")
