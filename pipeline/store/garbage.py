"""Find the files of a run that neither a record nor a possible resume names. Removes nothing.

Knows the layout of a node's folder and the catalog's pieces; outside of attempts it looks only at what nodes share.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from vitpipe.infra.at_once import by_key
from vitpipe.infra.storage.store import Entry, Store
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.store.attempts import COMMITTED, HEADER, Attempt, attempts_of
from vitpipe.pipeline.store.contents import SHARED, NodeContents, contents
from vitpipe.pipeline.store.soundness import examine, refusal
from vitpipe.stages.record import Record

_PIECES = tuple(stage.pieces for stage in CATALOG.values() if stage.pieces)


@dataclass(frozen=True)
class Garbage:
    """One file that nobody can need."""

    path: str
    """Relative to the run's folder."""
    bytes: int
    reason: str


def garbage(run: Store, unfinished: bool) -> tuple[Garbage, ...]:
    """List all that may go; with `unfinished`, also what a resume might have gone on from.

    IntegrityError when a record, or a file that one names, is not what was committed.
    """
    nodes = contents(run)
    read, flaws = examine(run, nodes, copied=True)
    if flaws:
        raise refusal(run, "collect the garbage of", flaws)
    records = {id: [one.record for one in read[id].values()] for id in nodes}
    begun = by_key(lambda id: _begun(run, nodes[id], records[id]), nodes)
    left = [_Left(node, records[id], begun[id]) for id, node in nodes.items()]
    found = [one for node in left for one in node.garbage(unfinished)]
    if unfinished or not any(node.resumable for node in left):
        reason = "shared between nodes, and no node is left that could go on with it"
        found += [Garbage(entry.path, entry.bytes, reason) for entry in run.list(f"{SHARED}/")]
    return tuple(found)


def _begun(run: Store, node: NodeContents, records: Sequence[Record]) -> Sequence[Attempt]:
    """Read attempts that no record is of. IntegrityError for a damaged `attempt.json`, or one lost beside pieces."""
    return attempts_of(run.child(node.id), node.paths(), "|".join(f"(?:{one})" for one in _PIECES), records)


@dataclass(frozen=True)
class _Left:
    """What drivers left in a node's folder."""

    node: NodeContents
    records: Sequence[Record]
    begun: Sequence[Attempt]

    def garbage(self, unfinished: bool) -> Iterator[Garbage]:
        """Yield the files of attempts that no record names and no resume may take, an attempt's header last."""
        spared = set() if unfinished else self.resumable
        for name, entries in self.node.attempts.items():
            if _family(name) in spared:
                continue
            reason = self._reason(name)
            header_last = sorted(entries, key=lambda one: one.path == f"{name}/{HEADER}")
            for entry in header_last:  # pieces without their header would count as damage
                if entry.path not in self.named and not self._explains(name, entry):
                    yield Garbage(f"{self.node.id}/{entry.path}", entry.bytes, reason)

    @cached_property
    def named(self) -> set[str]:
        return {file.at for record in self.records for file in record.files}

    @cached_property
    def resumable(self) -> set[str]:
        """Attempts that may be resumed: no record has their result, and they left a piece or are the newest.

        Those of other recipes than the present one too: whoever returns to an old YAML resumes where that ended.
        """
        newest = max((attempt.fence for attempt in self.begun), default=0)
        return {
            _family(one.name)
            for one in self.begun
            if not self._is_recorded(one) and (one.fence == newest or _has_pieces(one, self.node.attempts[one.name]))
        }

    def _is_recorded(self, attempt: Attempt) -> bool:
        return any(attempt.fits(record.fingerprint, record.inputs) for record in self.records)

    def _reason(self, name: str) -> str:
        """Say why the files of an attempt that no record names may go."""
        found = next((one for one in self.begun if one.name == name), None)
        if found is None:
            return "of an attempt that was never begun"
        if self._is_recorded(found):
            return "its node is committed, and no record names it"
        if _family(name) in self.resumable:
            return "what a resume might have gone on from"
        return "of an attempt that left no finished piece, and is not the newest"

    def _explains(self, name: str, entry: Entry) -> bool:
        """Whether a file explains what a record keeps: an attempt's header, and the last one's mark and log."""
        last = any(record.attempt == name for record in self.records)
        if entry.path.startswith(f"{name}/logs/") or entry.path == f"{name}/{COMMITTED}":
            return last
        return entry.path == f"{name}/{HEADER}" and (last or any(at.startswith(f"{name}/") for at in self.named))


def _has_pieces(attempt: Attempt, entries: Iterable[Entry]) -> bool:
    stage = CATALOG.get(str(attempt.recipe.get("stage")))
    if stage is None:
        return True  # a stage that this version does not know is not ours to judge
    prefix = f"{attempt.name}/"
    pieces = stage.pieces
    return pieces is not None and any(re.fullmatch(pieces, entry.path.removeprefix(prefix)) for entry in entries)


def _family(attempt: str) -> str:
    """Name the attempt without its gang's restart number: all restarts share one header and resume together."""
    return attempt.partition(".")[0]
