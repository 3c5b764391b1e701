"""Which committed nodes of a graph are no longer what was committed. Pure: facts in, errors out.

A result that was computed again is drift and may be replaced. A record or file that was changed after its commit is
damage, and replacing anything because of it would throw good work away.
"""

import hashlib
from collections.abc import Iterator

from vitpipe.infra.errors import IntegrityError
from vitpipe.pipeline.plan.fingerprint import encode
from vitpipe.pipeline.plan.planned import StoreFacts
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.pipeline.store.records import RECORD, Committed
from vitpipe.pipeline.store.soundness import later
from vitpipe.stages.artifacts import Origin
from vitpipe.stages.record import damaged


def damage(node: Node, graph: Graph, facts: StoreFacts, permitted: bool) -> IntegrityError | None:
    """Find what of the node's result is damaged or lost, or None. A lost record of a `permitted` node is made anew."""
    committed = facts.records.get(node.id)
    if committed is None:
        return None if permitted else _lost(node, graph, facts)
    if (absent := facts.absent.get(node.id)) and committed.record.fingerprint == facts.wanted[node.id].sha256:
        return damaged(committed.uri, absent, node.id, "")
    if node.id in facts.damaged:
        return facts.damaged[node.id]
    if not committed.record.is_sealed and not _agrees(committed):
        return damaged(committed.uri, "its recipe and its fingerprint do not agree", node.id)
    return _not_taken(node, committed, graph, facts) or _other_given(node, committed, facts)


def _agrees(committed: Committed) -> bool:
    return hashlib.sha256(encode(committed.record.recipe)).hexdigest() == committed.record.fingerprint


def _lost(node: Node, graph: Graph, facts: StoreFacts) -> IntegrityError | None:
    """The node's record is lost: an attempt committed one, or another node took it and its files are still there."""
    wanted = facts.wanted[node.id].sha256
    attempts = facts.attempts.get(node.id, ())
    if marked := next((one for one in attempts if one.committed), None):
        return damaged(f"{facts.run}/{node.id}", f"it is lost, and {marked.name} committed one", node.id)
    if any(attempt.fingerprint == wanted for attempt in facts.attempts.get(node.id, ())):
        for taker, other, refs in _takers(node, graph, facts):
            for ref in (ref for ref in refs if ref.fingerprint == wanted):
                found = f"it is lost, and {taker} took one of SHA-256 {ref.record_sha256}"
                return damaged(f"{other.uri.removesuffix(taker)}{node.id}", found, node.id)
    return None


def _not_taken(node: Node, committed: Committed, graph: Graph, facts: StoreFacts) -> IntegrityError | None:
    """The record is another one than other nodes took, though it was not computed again."""
    for taker, other, refs in _takers(node, graph, facts):
        taken = {ref.record_sha256 for ref in refs if ref.fingerprint == committed.record.fingerprint}
        both_sealed = committed.record.is_sealed and other.record.is_sealed
        if taken and committed.sha256 not in taken and not both_sealed and not later(committed.record, other.record):
            found = f"its bytes have SHA-256 {committed.sha256}, {taker} took {', '.join(sorted(taken))}"
            return damaged(committed.uri, f"{found}: this {RECORD} or that of {taker} was changed", node.id)
    return None


def _other_given(node: Node, committed: Committed, facts: StoreFacts) -> IntegrityError | None:
    """An artifact of another run has another record than the one that the node took, though it is no younger."""
    for name, refs in node.needs.items():
        for uri in filter(is_uri, refs):
            given, taken = facts.external[uri], committed.record.inputs.get(name, ())
            if not isinstance(given, Committed) or given.record.is_sealed:
                continue
            if given.record.started > committed.record.started:
                continue
            digests = {ref.record_sha256 for ref in taken if ref.fingerprint == given.record.fingerprint}
            if digests and given.sha256 not in digests:
                found = f"its bytes have SHA-256 {given.sha256}, {node.id} took {', '.join(sorted(digests))}"
                return damaged(uri, found, given.record.node)
    return None


def _takers(node: Node, graph: Graph, facts: StoreFacts) -> Iterator[tuple[str, Committed, tuple[Origin, ...]]]:
    """Yield the committed nodes of the graph that take this one, with what they took as those inputs."""
    for id, other in graph.nodes.items():
        for name, refs in other.needs.items():
            if node.id in refs and id in facts.records:
                yield id, facts.records[id], facts.records[id].record.inputs.get(name, ())
