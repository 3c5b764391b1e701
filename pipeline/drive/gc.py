"""Remove from a run what neither a record nor a possible resume names. The only deleter besides a stage's `keep`.

Knows the layout of a node's folder and the catalog's pieces; outside of attempts it looks at what nodes share alone.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from vitpipe.infra.at_once import by_key
from vitpipe.infra.lease_state import CLOCK, TIMING, Clock, Timing
from vitpipe.infra.storage.store import Entry, Store
from vitpipe.pipeline.drive.lease import hold
from vitpipe.pipeline.drive.shared_pieces import FOLDER
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.store.attempts import COMMITTED, HEADER, Attempt, attempts_of
from vitpipe.pipeline.store.contents import NodeContents, contents, open_run
from vitpipe.pipeline.store.soundness import examine, refusal
from vitpipe.stages.record import Record

_PIECES = tuple(stage.pieces for stage in CATALOG.values() if stage.pieces)
ABANDONED_S = 3600.0
"""Half-written uploads of this age have no writer any more."""


@dataclass(frozen=True)
class Garbage:
    """One file that nobody can want."""

    path: str
    """Relative to the run's folder."""
    bytes: int
    reason: str


@dataclass(frozen=True)
class Removed:
    """What `gc` did, or would have done."""

    garbage: tuple[Garbage, ...]
    unfinished_writes: int = 0
    """Temporary files and uploads in parts that no listing shows."""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(one.path for one in self.garbage)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.garbage)


def gc(
    run_uri: str, unfinished: bool = False, timing: Timing = TIMING, clock: Clock = CLOCK, dry_run: bool = False
) -> Removed:
    """Take the run's lease and remove its garbage; with `unfinished`, also what a resume might have gone on from.

    Everything is read before anything is removed. With `dry_run` nothing is, no lease is taken, and who holds the run
    is not asked. Errors: UsageError for an unknown run; LeaseLost when a driver is alive or takes over; IntegrityError
    when a record or an attempt cannot be read, a file that a record names is missing or of another size, or a record
    is not the one that another node took; StorageError.
    """
    run = open_run(run_uri, "collect the garbage of")
    if dry_run:
        return Removed(tuple(_garbage(run, unfinished)))
    with hold(run, timing=timing, clock=clock) as lease:
        garbage = tuple(_garbage(run, unfinished))
        for one in garbage:
            lease.check()
            run.delete(one.path)
        lease.check()
        return Removed(garbage, run.sweep(ABANDONED_S))


def _garbage(run: Store, unfinished: bool) -> list[Garbage]:
    """All that may go. IntegrityError when something it would have to go by is not what it was."""
    nodes = contents(run)
    read, flaws = examine(run, nodes)
    if flaws:
        raise refusal(run, "collect the garbage of", flaws)
    begun = by_key(lambda id: _begun(run, nodes[id]), nodes)
    left = [_Left(node, [one.record for one in read[id].values()], begun[id]) for id, node in nodes.items()]
    garbage = [one for node in left for one in node.garbage(unfinished)]
    if unfinished or not any(node.resumable for node in left):
        reason = "shared between nodes, and no node is left that could go on with it"
        garbage += [Garbage(entry.path, entry.bytes, reason) for entry in run.list(f"{FOLDER}/")]
    return garbage


def _begun(run: Store, node: NodeContents) -> Sequence[Attempt]:
    """The node's attempts. IntegrityError for a damaged `attempt.json`, and a lost one beside pieces of any stage."""
    files = {
        name: [entry.path.removeprefix(f"{name}/") for entry in entries] for name, entries in node.attempts.items()
    }
    return attempts_of(run.child(node.id), files, "|".join(f"(?:{one})" for one in _PIECES))


@dataclass(frozen=True)
class _Left:
    """What drivers left in a node's folder."""

    node: NodeContents
    records: Sequence[Record]
    begun: Sequence[Attempt]

    def garbage(self, unfinished: bool) -> Iterator[Garbage]:
        """The files of attempts that no record names and no resume may take, an attempt's header last of all."""
        spared = set() if unfinished else self.resumable
        for name, entries in self.node.attempts.items():
            if _family(name) in spared:
                continue
            reason = self._reason(name)
            header_last = sorted(entries, key=lambda one: one.path == f"{name}/{HEADER}")
            for entry in header_last:  # pieces without it are damage
                if entry.path not in self.named and not self._explains(name, entry):
                    yield Garbage(f"{self.node.id}/{entry.path}", entry.bytes, reason)

    @cached_property
    def named(self) -> set[str]:
        return {file.at for record in self.records for file in record.files}

    @cached_property
    def resumable(self) -> set[str]:
        """Attempts that may be gone on with: no record has their result, and they left a piece or are the newest.

        Also of other recipes than the present one: whoever returns to an old YAML resumes where it ended.
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
        """Why what is not named in an attempt may go."""
        found = next((one for one in self.begun if one.name == name), None)
        if found is None:
            return "of an attempt that was never begun"
        if self._is_recorded(found):
            return "its node is committed, and no record names it"
        if _family(name) in self.resumable:
            return "what a resume might have gone on from"
        return "of an attempt that left no finished piece, and is not the newest"

    def _explains(self, name: str, entry: Entry) -> bool:
        """Whether it tells of what a record keeps: an attempt's header, the mark and the log of the last one."""
        last = any(record.attempt == name for record in self.records)
        if entry.path.startswith(f"{name}/logs/") or entry.path == f"{name}/{COMMITTED}":
            return last
        return entry.path == f"{name}/{HEADER}" and (last or any(at.startswith(f"{name}/") for at in self.named))


def _has_pieces(attempt: Attempt, entries: Iterable[Entry]) -> bool:
    stage = CATALOG.get(str(attempt.recipe.get("stage")))
    if stage is None:
        return True  # of a stage that this version does not know: not ours to judge
    prefix = f"{attempt.name}/"
    pieces = stage.pieces
    return pieces is not None and any(re.fullmatch(pieces, entry.path.removeprefix(prefix)) for entry in entries)


def _family(attempt: str) -> str:
    """The attempt without the number of its gang's restart: these share one header and resume together."""
    return attempt.partition(".")[0]
