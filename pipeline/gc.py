"""Remove from a run what neither a record nor a possible resume names. The only deleter besides a stage's `keep`.

Knows the layout of a node's folder and the catalog's pieces; outside of attempts it looks at what nodes share alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from infra.lease_state import CLOCK, TIMING, Clock, Timing
from infra.storage.store import Entry, Store
from pipeline.attempts import HEADER, Attempt, read_attempt
from pipeline.catalog import CATALOG
from pipeline.contents import NodeContents, contents, open_run
from pipeline.lease import hold
from pipeline.shared import FOLDER
from stages.record import Record, parse_record

ABANDONED_S = 3600.0
"""Half-written uploads of this age have no writer any more."""


@dataclass(frozen=True)
class Removed:
    """What `gc` did."""

    paths: tuple[str, ...]
    """Relative to the run's folder."""
    bytes: int
    unfinished_writes: int
    """Temporary files and uploads in parts that no listing shows."""


def gc(run_uri: str, unfinished: bool = False, timing: Timing = TIMING, clock: Clock = CLOCK) -> Removed:
    """Take the run's lease and remove its garbage; with `unfinished`, also what a resume might have gone on from.

    Everything is read before anything is removed. Errors: UsageError for an unknown run; LeaseLost when a driver
    is alive or takes over; IntegrityError for a damaged record or attempt; StorageError.
    """
    run = open_run(run_uri, "collect the garbage of")
    with hold(run, timing=timing, clock=clock) as lease:
        nodes = contents(run).values()
        garbage = [
            Entry(f"{node.id}/{entry.path}", entry.bytes)
            for node in nodes
            for entry in garbage_of(run.child(node.id), node, unfinished)
        ]
        if unfinished or not any(_goes_on(run.child(node.id), node) for node in nodes):
            garbage += run.list(f"{FOLDER}/")  # features that only a node still to come could want
        for entry in garbage:
            lease.check()
            run.delete(entry.path)
        lease.check()
        swept = run.sweep(ABANDONED_S)
    return Removed(tuple(entry.path for entry in garbage), sum(entry.bytes for entry in garbage), swept)


def garbage_of(store: Store, node: NodeContents, unfinished: bool) -> list[Entry]:
    """The files of a node's attempts that nobody can want. IntegrityError for a damaged record or attempt."""
    records = [parse_record(store.read(name), store.uri) for name in node.records]
    named = {file.at for record in records for file in record.files}
    spared = set() if unfinished else _resumable(store, node, records)
    return [
        entry
        for name, entries in node.attempts.items()
        if _family(name) not in spared
        for entry in sorted(
            entries, key=lambda one: one.path == f"{name}/{HEADER}"
        )  # last: pieces without it are damage
        if entry.path not in named and not _explains(name, entry, records, named)
    ]


def _goes_on(store: Store, node: NodeContents) -> bool:
    """Whether an attempt of the node may be gone on with."""
    return bool(_resumable(store, node, [parse_record(store.read(name), store.uri) for name in node.records]))


def _resumable(store: Store, node: NodeContents, records: Iterable[Record]) -> set[str]:
    """Attempts that may be gone on with: no record has their result, and they left a piece or are the newest.

    Also of other recipes than the present one: whoever returns to an old YAML resumes where it ended.
    """
    begun = {name: found for name in node.attempts if (found := read_attempt(store, name))}
    newest = max((attempt.fence for attempt in begun.values()), default=0)
    return {
        _family(name)
        for name, attempt in begun.items()
        if not any(attempt.fits(record.fingerprint, record.inputs) for record in records)
        and (attempt.fence == newest or _has_pieces(attempt, node.attempts[name]))
    }


def _has_pieces(attempt: Attempt, entries: Iterable[Entry]) -> bool:
    stage = CATALOG.get(str(attempt.recipe.get("stage")))
    if stage is None:
        return True  # of a stage that this version does not know: not ours to judge
    prefix = f"{attempt.name}/"
    pieces = stage.pieces
    return pieces is not None and any(re.fullmatch(pieces, entry.path.removeprefix(prefix)) for entry in entries)


def _explains(name: str, entry: Entry, records: Iterable[Record], named: set[str]) -> bool:
    """Whether it tells of what a record keeps: the header of an attempt that has some of it, the log of the last."""
    last = any(record.attempt == name for record in records)
    if entry.path.startswith(f"{name}/logs/"):
        return last
    return entry.path == f"{name}/{HEADER}" and (last or any(at.startswith(f"{name}/") for at in named))


def _family(attempt: str) -> str:
    """The attempt without the number of its gang's restart: these share one header and resume together."""
    return attempt.partition(".")[0]
