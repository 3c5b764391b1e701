"""The runs of a store, each by a handful of small files: its spec, its lease, its records.

A folder that is no run is passed over; a run that cannot be read is named with the reason and hides no other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError, UsageError, VitpipeError
from vitpipe.infra.lease_state import LeaseState
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.spec.places import absolute_uri
from vitpipe.pipeline.spec.text.problems import shown
from vitpipe.pipeline.spec.top_level import NAME
from vitpipe.pipeline.store.accepted_spec import SPEC, accepted_graph
from vitpipe.pipeline.store.contents import list_run
from vitpipe.pipeline.store.copies import records_in_run, sound
from vitpipe.pipeline.store.pulse import Pulse
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.runs import ignore, known_run
from vitpipe.pipeline.store.soundness import fence_of
from vitpipe.pipeline.store.status import status_of
from vitpipe.pipeline.store.submitted import read_submission
from vitpipe.stages.artifacts import Score

RUNS_AT_ONCE = 4
"""Runs that are looked at together; of each, sixteen records are asked for at a time."""


@dataclass(frozen=True)
class RunFacts:
    """What a store tells of one run."""

    name: str
    uri: str
    state: str
    """As `status` says it; `begun` before its spec was accepted, `unreadable` when that or a record cannot be read."""
    why: str = ""
    """What cannot be read of it."""
    started: str | None = None
    """When the first of its results was begun."""
    ended: str | None = None
    """When the last of its results was complete, or its driver was last heard of; None while it runs."""
    graph: Graph | None = None
    """The graph of its accepted spec."""
    records: Mapping[str, Committed] = field(default_factory=dict)
    """By node, in the graph's order."""

    @property
    def scores(self) -> dict[str, Score]:
        """Its scores, by node."""
        made = {id: found.artifact() for id, found in self.records.items() if found.record.output["kind"] == Score.kind}
        return {id: score for id, score in made.items() if isinstance(score, Score)}


def find_store(text: str, tell: Callable[[str], None] = ignore) -> Store:
    """Open the store that STORE names: a URI, a folder, or the YAML of a run in it. Errors: UsageError; SpecError.

    `tell` hears of a YAML's store that lies beside it and not where it says, seen from the current folder.
    """
    if "://" not in text:
        if text.endswith((".yaml", ".yml")) or Path(text).is_file():
            return open_store(_store_of(Path(text), tell))
        text = f"file://{Path(text).expanduser().absolute()}"
    try:
        store = open_store(absolute_uri(text, Path.cwd()))
    except ValueError as error:
        raise UsageError(f"list the runs of {shown(text)}", str(error), "name a store, or the YAML of a run") from None
    if store.uri.startswith("file://") and not Path(store.uri.removeprefix("file://")).is_dir():
        raise UsageError(f"list the runs of {store.uri}", "no such folder", "check the store")
    return store


def _store_of(path: Path, tell: Callable[[str], None]) -> str:
    here, beside = load(path).store, load(path, folder=path.absolute().parent).store
    if here == beside or _folder_of(here).is_dir() or not _folder_of(beside).is_dir():
        return here
    tell(f"{here} is no store; this is {beside}, beside {path}")
    return beside


def _folder_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def runs_in(store: Store) -> list[RunFacts]:
    """Read every run of a store, the one that ended last first. UsageError for the folder of a run.

    Asks once for the folders; then of each run its spec, its lease, its listing and the copies of its records once, and
    what `status` asks where its last driver did not commit all.
    """
    names = [name for name in store.folders() if NAME.fullmatch(name)]
    found = [run for run in answers(lambda name: _run(store, name), names, RUNS_AT_ONCE) if run]
    if not found and store.size(SPEC) is not None:
        parent, _, name = store.uri.rpartition("/")
        do = f"for it and its siblings: vitpipe ls {parent}; for its files: vitpipe artifacts ls {store.uri}"
        raise UsageError(f"list the runs of {store.uri}", f"that is a run itself, {name}", do)
    return sorted(found, key=lambda run: run.ended or run.started or "", reverse=True)


def named_runs(names: Sequence[str], tell: Callable[[str], None] = ignore) -> list[RunFacts]:
    """Read the runs that a person named to compare; `tell` as for `find_run`.

    Errors: UsageError for fewer than two, or one named twice; those of `read_run`.
    """
    if len(names) < 2:
        raise UsageError("compare runs", "only one is named", "name two or more: STORE/NAME, or their YAMLs")
    known = [known_run(name, "compare", tell) for name in names]
    uris = [run.uri for run in known]
    if twice := sorted({uri for uri in uris if uris.count(uri) > 1}):
        raise UsageError("compare runs", f"{', '.join(twice)} is named more than once", "name each run once")
    return list(answers(lambda run: read_run(run.store, run.name), known, RUNS_AT_ONCE))


def read_run(run: Store, name: str) -> RunFacts:
    """Read the facts of one run.

    Errors: UsageError where no run was accepted or a record is of a newer vitpipe; IntegrityError for a damaged file.
    """
    graph = accepted_graph(run, "read")
    return _facts(run, name, graph, sound(records_in_run(run, list_run(run, brief=True), graph.nodes)))


def _run(store: Store, name: str) -> RunFacts | None:
    run = store.child(name)
    try:
        graph = accepted_graph(run, "list")
    except UsageError:
        return _begun(run, name)
    except VitpipeError as error:
        return RunFacts(name, run.uri, "unreadable", str(error))
    try:
        read = records_in_run(run, list_run(run, brief=True), graph.nodes)
        flaws = [str(found) for found in read.values() if isinstance(found, VitpipeError)]
        readable = {id: found for id, found in read.items() if not isinstance(found, VitpipeError)}
        return _facts(run, name, graph, readable, "; ".join(flaws))
    except VitpipeError as error:
        return RunFacts(name, run.uri, "unreadable", str(error), graph=graph)


def _begun(run: Store, name: str) -> RunFacts | None:
    """The run without a spec that a driver has just taken, or was killed in; None for a folder that is no run."""
    try:
        sign = Pulse(run, patient=False).look()
    except VitpipeError as error:
        return RunFacts(name, run.uri, "unreadable", str(error))
    try:
        waiting = read_submission(run)
    except IntegrityError as error:
        return RunFacts(name, run.uri, "unreadable", str(error))
    if waiting and waiting.awaits(sign.lease):
        return RunFacts(name, run.uri, "submitted", str(waiting))
    return RunFacts(name, run.uri, "begun", "its spec was not accepted yet") if sign.lease else None


def _facts(run: Store, name: str, graph: Graph, read: Mapping[str, Committed | None], why: str = "") -> RunFacts:
    records = {id: found for id, found in read.items() if found}
    pulse = Pulse(run, patient=False)
    sign = pulse.look()
    if why:
        state = "unreadable"
    elif not sign.alive and _settled(graph, records, sign.lease):
        state = "committed"
    else:
        found = status_of(run, graph, pulse)
        state, why = found.state, found.note
    starts = [one.begun for one in records.values() if one.begun]
    ends = [one.ended for one in records.values() if one.ended]
    if sign.lease and sign.lease.time and state != "committed":
        ends.append(datetime.fromtimestamp(sign.lease.time, UTC))
    started = _text(min(starts)) if starts else None
    ended = _text(max(ends)) if ends and state != "running" else None
    return RunFacts(name, run.uri, state, why, started, ended, graph, records)


def _settled(graph: Graph, records: Mapping[str, Committed], lease: LeaseState | None) -> bool:
    """Whether records and lease alone say that all is done: the last driver made every node, and let go."""
    if set(records) != set(graph.nodes) or not lease or lease.holder:
        return False
    return all(fence_of(found.record) == lease.fence for found in records.values())


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
