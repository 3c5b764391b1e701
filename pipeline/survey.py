"""Gather from the store what a plan needs to know: records, attempts, artifacts of other runs. Writes nothing."""

import hashlib

from infra.at_once import by_key
from infra.errors import IntegrityError, UsageError, VitpipeError
from infra.storage.store import Store
from pipeline.attempts import list_attempts
from pipeline.fingerprint import Fingerprint, encode, fingerprints
from pipeline.graph import Graph
from pipeline.planned import Facts
from pipeline.records import Committed, read_committed, read_external


def survey(run: Store, graph: Graph) -> Facts:
    """Ask the store about every node of the graph in the run's folder. StorageError when it does not answer."""
    there = by_key(lambda id: read_committed(run.child(id)), graph.nodes)
    records = {id: found for id, found in there.items() if found}
    external = by_key(_external, graph.uris())
    wanted = fingerprints(graph, {uri: _fingerprint(found) for uri, found in external.items()})
    open_nodes = [id for id in graph.nodes if not _settled(records.get(id), wanted[id])]
    attempts = by_key(lambda id: list_attempts(run.child(id), graph.nodes[id].stage.pieces), open_nodes)
    return Facts(wanted, records, attempts, external)


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
