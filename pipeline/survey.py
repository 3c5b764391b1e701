"""Gather from the store what a plan needs to know: records, attempts, artifacts of other runs. Writes nothing."""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from infra.errors import IntegrityError, UsageError, VitpipeError
from infra.storage.store import Store
from pipeline.attempts import list_attempts
from pipeline.fingerprint import Fingerprint, encode, fingerprints
from pipeline.graph import Graph
from pipeline.planned import Facts
from pipeline.records import Committed, read_committed, read_external
from pipeline.soundness import absent
from stages.record import damaged

T = TypeVar("T")

_READERS = 16


def survey(run: Store, graph: Graph) -> Facts:
    """Ask the store about every node of the graph in the run's folder. StorageError when it does not answer."""
    records = {
        id: found for id, found in _each(graph.nodes, lambda id: read_committed(run.child(id), id)).items() if found
    }
    external = _each(graph.uris(), _external)
    wanted = fingerprints(graph, {uri: _fingerprint(found) for uri, found in external.items()})
    open_nodes = [id for id in graph.nodes if not _settled(records.get(id), wanted[id])]
    attempts = _each(open_nodes, lambda id: list_attempts(run.child(id), graph.nodes[id].stage.pieces))
    gone = {id: told for id, told in _each(records, lambda id: _absent(run.child(id), records[id])).items() if told}
    return Facts(wanted, records, attempts, external, gone)


def _absent(node: Store, committed: Committed) -> str:
    """Which files of the node are missing, or of another size, in words."""
    found = absent(committed.record.files, {entry.path: entry.bytes for entry in node.list("a")})
    return "; ".join(f"{file.at} {problem}" for file, problem in found[:5]) + (", and more" if len(found) > 5 else "")


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


def _each(keys: Iterable[str], ask: Callable[[str], T]) -> dict[str, T]:
    """Ask about all keys at once; a store far away answers many questions as fast as one."""
    listed = list(keys)
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(listed, pool.map(ask, listed), strict=True))
