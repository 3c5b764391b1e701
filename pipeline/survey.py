"""Gather from the store what a plan needs to know: records, attempts, artifacts of other runs. Writes nothing."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from infra.errors import IntegrityError, UsageError, VitpipeError
from infra.storage.store import Store
from pipeline.attempts import list_attempts
from pipeline.fingerprint import Fingerprint, encode, fingerprints
from pipeline.graph import Graph
from pipeline.planned import Facts
from pipeline.records import Committed, read_committed, read_external
from stages.sighting import Sighted

T = TypeVar("T")

_READERS = 16


def survey(run: Store, graph: Graph, digests: bool = False, sighted: Mapping[str, Sighted] | None = None) -> Facts:
    """Ask the store about every node of the graph in the run's folder. StorageError when it does not answer.

    Sources of what is committed are looked at, with their `digests` when asked, unless `sighted` says what they are.
    """
    records = {id: found for id, found in _each(graph.nodes, lambda id: read_committed(run.child(id))).items() if found}
    external = _each(graph.uris(), _external)
    wanted = fingerprints(graph, {uri: _fingerprint(found) for uri, found in external.items()})
    open_nodes = [id for id in graph.nodes if not _settled(records.get(id), wanted[id])]
    attempts = _each(open_nodes, lambda id: list_attempts(run.child(id), graph.nodes[id].stage.pieces))
    return Facts(wanted, records, attempts, external, _sighted(graph, records, wanted, digests, sighted or {}))


def _sighted(
    graph: Graph,
    records: Mapping[str, Committed],
    wanted: Mapping[str, Fingerprint],
    digests: bool,
    known: Mapping[str, Sighted],
) -> dict[str, Sighted]:
    """What lies at the sources now, of nodes whose record answers to the recipe. `known` are not looked at again."""

    def look(id: str) -> Sighted:
        if id in known:
            return known[id]
        node, committed = graph.nodes[id], records[id]
        looks = node.stage.look_fn()
        assert looks is not None
        return looks(node.config, node.resources, committed.artifact(), committed.record, digests)

    settled = [id for id in graph.nodes if graph.nodes[id].stage.look and _settled(records.get(id), wanted[id])]
    return _each(settled, look)


def _settled(committed: Committed | None, wanted: Fingerprint) -> bool:
    return committed is not None and committed.record.fingerprint == wanted.sha256


def _external(uri: str) -> Committed | VitpipeError:
    try:
        found = read_external(uri)
    except (UsageError, IntegrityError) as error:
        return error  # the plan says which node it blocks
    if hashlib.sha256(encode(found.record.recipe)).hexdigest() != found.record.fingerprint:
        return IntegrityError(f"use {uri}", "its record's recipe and fingerprint do not agree", "restore its record")
    return found


def _fingerprint(found: Committed | VitpipeError) -> str:
    return "unknown" if isinstance(found, VitpipeError) else found.record.fingerprint


def _each(keys: Iterable[str], ask: Callable[[str], T]) -> dict[str, T]:
    """Ask about all keys at once; a store far away answers many questions as fast as one."""
    listed = list(keys)
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(listed, pool.map(ask, listed), strict=True))
