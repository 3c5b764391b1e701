"""Find results of the store's other runs that a node may adopt instead of being computed. Writes nothing.

A hint leads to a record, and the record counts: its fingerprint, its files' sizes, and its source as it is now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.infra.at_once import answers, by_key
from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.plan.fingerprint import Fingerprint
from vitpipe.pipeline.plan.planned import Equals, Result
from vitpipe.pipeline.spec.catalog import Reuse
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.pipeline.store.records import Committed, read_committed
from vitpipe.pipeline.store.results import ResultPlace, announced, perhaps_announced, taken_by
from vitpipe.pipeline.store.soundness import absent

READ_AT_MOST = 16
"""Records of equal recipes that are read for one node, the newest first."""
LOOKED_AT = 4
"""Of these, sources that are listed: data sets of one recipe may lie in many folders."""
NONE = Equals()


def equal_results(
    run: Store, graph: Graph, reuse: Reuse, ids: Sequence[str], wanted: Mapping[str, Fingerprint], digests: bool
) -> dict[str, Equals]:
    """Find what each of these nodes could adopt under that word.

    Where others' runs may not be read, nothing of them is adopted, and the plan says why.
    """
    uri, _, name = run.uri.rpartition("/")
    sought = [id for id in ids if graph.nodes[id].stage.is_adoptable(reuse)]
    if not sought:
        return {}
    search = _Search(open_store(uri), name, digests)
    try:
        there = perhaps_announced(search.store, {wanted[id].sha256 for id in sought})
    except StorageError as error:  # perhaps no right to it: the run can do without
        return dict.fromkeys(sought, _unknown(error))
    asked = [id for id in sought if wanted[id].sha256 in there]
    return dict.fromkeys(sought, NONE) | by_key(lambda id: search.of(graph.nodes[id], wanted[id].sha256), asked)


def _unknown(error: StorageError) -> Equals:
    return Equals(unfit=f"what other runs have of it is not known: {error.in_brief}")


@dataclass(frozen=True)
class _Search:
    store: Store
    run: str
    digests: bool

    def of(self, node: Node, fingerprint: str) -> Equals:
        try:
            places = [place for place in announced(self.store, fingerprint) if place.run != self.run]
        except StorageError as error:
            return _unknown(error)
        read = answers(self._read, places[:READ_AT_MOST])
        there = [one for one in read if one and one.record.fingerprint == fingerprint]
        same_place = [one for one in there if one.record.config == node.config.model_dump(mode="json")]
        others = [one for one in there if one not in same_place]
        ordered = [*same_place, *others][: LOOKED_AT if node.stage.look else READ_AT_MOST]
        results, unfit = [], ""
        for committed in ordered:
            try:
                found = self._usable(node, committed)
            except StorageError as error:
                found = f"it cannot be read: {error.found}"
            if isinstance(found, Result):
                results.append(found)
                if not node.needs:
                    break  # nothing can tell the next from this one
            else:
                unfit = unfit or f"{place_of(committed)} is of this recipe, but {found}"
        return Equals(tuple(results), unfit)

    def _read(self, place: ResultPlace) -> Committed | None:
        try:
            return read_committed(self.store.child(f"{place.run}/{place.node}"), place.node)
        except (IntegrityError, UsageError, StorageError):
            return None  # damaged, of a newer vitpipe, no node's name, or of somebody else's: its own run says so

    def _usable(self, node: Node, committed: Committed) -> Result | str:
        """Return the result with what was seen of its source, or why it cannot be adopted."""
        sizes = {entry.path: entry.bytes for entry in open_store(committed.uri).list("a")}
        if gone := absent(committed.record.files, sizes):
            return f"its {gone[0][0].at} {gone[0][1]}"
        given, looks = taken_by(committed), node.stage.look_fn()
        if looks is None:
            return Result(committed, given)
        try:
            sighted = looks(node.config, node.resources, committed.artifact(), committed.record, self.digests)
        except (IntegrityError, NotFound) as error:
            return f"it is damaged: {error.found}"
        if sighted.is_same:
            return Result(committed, given, sighted)
        return "; ".join(sighted.changes) or sighted.note or "its source cannot be compared"


def place_of(committed: Committed) -> str:
    """Name a node of another run of the same store: `mine/images`."""
    run = committed.uri.removesuffix(f"/{committed.record.node}").rpartition("/")[2]
    return f"{run}/{committed.record.node}"
