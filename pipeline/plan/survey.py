"""Gather from the store what a plan needs to know: records, attempts, artifacts of other runs. Writes nothing."""

import hashlib
from collections.abc import Mapping, Sequence

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, UsageError, VitpipeError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.plan.equals import equal_results
from vitpipe.pipeline.plan.fingerprint import Fingerprint, encode, fingerprints
from vitpipe.pipeline.plan.planned import StoreFacts
from vitpipe.pipeline.spec.catalog import Reuse
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.pipeline.store.attempts import Attempt, attempts_of
from vitpipe.pipeline.store.contents import NodeContents, list_run
from vitpipe.pipeline.store.copies import records_in_run, sound
from vitpipe.pipeline.store.records import Committed, read_committed, read_external
from vitpipe.pipeline.store.soundness import absent
from vitpipe.stages.commits import at_commits, compared, read_commits
from vitpipe.stages.record import damaged
from vitpipe.stages.sighting import Sighted

BEFORE = StoreFacts({})
"""What is known where nothing was asked yet."""


def survey(
    run: Store, graph: Graph, digests: bool = False, before: StoreFacts = BEFORE, reuse: Reuse = "run"
) -> StoreFacts:
    """Ask the store about every node of the graph in the run's folder. StorageError when it does not answer.

    Sources of committed data are looked at, by digest when `digests` is set, unless `before` has them. For what is not
    committed, `reuse` says how far to look among the store's other runs.
    """
    seen_there = list_run(run)
    records = sound(records_in_run(run, seen_there, graph.nodes))
    external = by_key(_external, graph.uris())
    wanted = fingerprints(graph, {uri: _fingerprint(found) for uri, found in external.items()})
    open_nodes = [id for id in graph.nodes if not _settled(records.get(id), wanted[id])]
    attempts = by_key(lambda id: _attempts(run.child(id), graph.nodes[id], seen_there.of(id)), open_nodes)
    marked = [id for id in open_nodes if id not in records and any(one.committed for one in attempts[id])]
    meanwhile = by_key(lambda id: read_committed(run.child(id), id), marked)  # a mark is written after its record
    records |= {id: found for id, found in meanwhile.items() if found}
    gone = {id: words for id, one in records.items() if (words := _absent(seen_there.of(id).sizes(), one))}
    looked = _sighted(graph, records, wanted, digests, before.sighted)
    seen = {id: found for id, found in looked.items() if isinstance(found, Sighted)}
    begun = {id: attempts[id] for id in open_nodes if id not in records}
    seen |= _moved(run, graph, begun, wanted)
    bad = {id: found for id, found in looked.items() if isinstance(found, IntegrityError)}
    sought = [id for id in open_nodes if id not in records and id not in before.equals]
    equals = {**before.equals, **equal_results(run, graph, reuse, sought, wanted, digests)}
    return StoreFacts(wanted, records, attempts, external, gone, seen, bad, run.uri, equals)


def _attempts(store: Store, node: Node, seen: NodeContents) -> tuple[Attempt, ...]:
    return attempts_of(store, seen.paths(), node.stage.pieces)


def _absent(sizes: Mapping[str, int], committed: Committed) -> str:
    """Say which files of the node are missing, or of another size."""
    found = absent(committed.record.files, sizes)
    return "; ".join(f"{file.at} {problem}" for file, problem in found[:5]) + (", and more" if len(found) > 5 else "")


def _sighted(
    graph: Graph,
    records: Mapping[str, Committed],
    wanted: Mapping[str, Fingerprint],
    digests: bool,
    known: Mapping[str, Sighted],
) -> dict[str, Sighted | IntegrityError]:
    """Look at the sources of nodes whose record has the wanted fingerprint; `known` ones are not looked at again.

    An IntegrityError says which of the files that tell what was taken is damaged.
    """

    def look(id: str) -> Sighted | IntegrityError:
        if id in known:
            return known[id]
        node, committed = graph.nodes[id], records[id]
        looks = node.stage.look_fn()
        assert looks is not None
        try:
            return looks(node.config, node.resources, committed.artifact(), committed.record, digests)
        except (IntegrityError, NotFound) as error:
            return damaged(committed.uri, error.in_brief, id, "")

    settled = [id for id in graph.nodes if graph.nodes[id].stage.look and _settled(records.get(id), wanted[id])]
    return by_key(look, settled)


def _moved(
    run: Store, graph: Graph, begun: Mapping[str, Sequence[Attempt]], wanted: Mapping[str, Fingerprint]
) -> dict[str, Sighted]:
    """Find nodes whose newest attempt of this recipe took another commit from the Hub than there is now."""

    def look(id: str) -> Sighted | None:
        same = next((one for one in begun[id] if one.fingerprint == wanted[id].sha256), None)
        taken = read_commits(run.child(id), same.name) if same else {}
        try:
            return compared(taken, at_commits(graph.nodes[id].config)[1]) if taken else None
        except (UsageError, StorageError):
            return None  # the stage asks again, and says why it cannot begin

    return {id: found for id, found in by_key(look, begun).items() if found and found.is_moved}


def _settled(committed: Committed | None, wanted: Fingerprint) -> bool:
    return committed is not None and committed.record.fingerprint == wanted.sha256


def _external(uri: str) -> Committed | VitpipeError:
    try:
        found = read_external(uri)
    except (UsageError, IntegrityError) as error:
        return error  # the plan says which node it blocks
    if hashlib.sha256(encode(found.record.recipe)).hexdigest() != found.record.fingerprint:
        return damaged(uri, "its recipe and fingerprint do not agree", found.record.node)
    return found


def _fingerprint(found: Committed | VitpipeError) -> str:
    return "unknown" if isinstance(found, VitpipeError) else found.record.fingerprint
