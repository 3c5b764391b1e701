"""Whether a run's folder agrees with itself: its records, what other nodes took of them, and the files they name.

Goes by one listing and small files alone: reads no tensor and no tar, knows no spec, changes nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.attempts import COMMITTED, read_attempt
from vitpipe.pipeline.store.contents import NodeContents, RunContents
from vitpipe.pipeline.store.copies import Found, records_in_run
from vitpipe.pipeline.store.records import RECORD, Committed, read_committed
from vitpipe.stages.artifacts import File
from vitpipe.stages.record import Record

_MANIFEST = "manifest.json"

Records = Mapping[str, Mapping[str, Committed]]
"""By node and name: `record.json` and kept ones."""


@dataclass(frozen=True)
class Flaw:
    """One thing that is not what it was when it was committed."""

    node: str
    path: str
    """Path in the node's folder."""
    problem: str

    def __str__(self) -> str:
        return f"{self.node}/{self.path} {self.problem}"


def examine(run: Store, nodes: Mapping[str, NodeContents], copied: bool = False) -> tuple[Records, list[Flaw]]:
    """Read every record of the listed nodes; those that can be read, and all that is wrong with them or their files.

    `copied` lets the run's copies stand for records whose objects were not written to since.
    Errors: UsageError for a record of a newer schema; StorageError.
    """
    read, flaws = _records(run, nodes, copied)
    taken = list(_not_what_was_taken(run, nodes, read))
    flaws += _lost(run, nodes, read, taken)
    for id, node in nodes.items():
        flaws += [Flaw(id, file.at, problem) for file, problem in absent(files_of(read[id].values()), node.sizes())]
    flaws += _other_manifests(run, nodes, read)
    flaws += _once(one for one in taken if nodes[one.node].committed)
    return read, flaws


def lost_records(run: Store, nodes: Mapping[str, NodeContents]) -> list[Flaw]:
    """Find records that are lost, as far as the listed nodes show. Errors as `examine`."""
    if all(node.committed or not node.attempts for node in nodes.values()):
        return []
    read, _ = _records(run, nodes, True)
    return _lost(run, nodes, read, _not_what_was_taken(run, nodes, read))


def _records(
    run: Store, nodes: Mapping[str, NodeContents], copied: bool
) -> tuple[dict[str, dict[str, Committed]], list[Flaw]]:
    """Read every record: those that can be read, and a flaw for each of the others."""
    read: dict[str, dict[str, Committed]] = {id: {} for id in nodes}
    flaws = []
    wanted = [(id, name) for id, node in nodes.items() for name in node.records]
    known = records_in_run(run, RunContents(dict(nodes), frozenset()), nodes) if copied else {}

    def ask(one: tuple[str, str]) -> Found:
        return known[one[0]] if one[1] == RECORD and one[0] in known else _read(run, *one)

    for (id, name), found in zip(wanted, answers(ask, wanted), strict=True):
        if isinstance(found, UsageError):
            raise found
        if isinstance(found, Committed):
            read[id][name] = found
        else:
            damage = f"is damaged: {found.found.removeprefix('it is damaged: ')}" if found else "is missing"
            flaws.append(Flaw(id, name, damage))
    return read, flaws


def refusal(run: Store, asked: str, flaws: Sequence[Flaw]) -> IntegrityError:
    """Make the error that refuses what would have to go by these records."""
    named = "; ".join(map(str, flaws[:5])) + (f"; and {len(flaws) - 5} more" if len(flaws) > 5 else "")
    checks = (f"`vitpipe artifacts verify {run.uri} {node}`" for node in sorted({one.node for one in flaws}))
    do = f"restore them from a copy ({', '.join(checks)} tell when they are right again)"
    return IntegrityError(f"{asked} {run.uri}", f"nothing was removed, because of what is not as it was: {named}", do)


def absent(files: Iterable[File], sizes: Mapping[str, int]) -> list[tuple[File, str]]:
    """Find the files that are missing, or of another size than their record says, in a listing of the node's folder."""
    return [(file, difference(file, sizes.get(file.at))) for file in files if sizes.get(file.at) != file.bytes]


def difference(file: File, size: int | None) -> str:
    """Say that a file is missing (no size), or has another size than its record says."""
    return "is missing" if size is None else f"has {size} bytes, the record says {file.bytes}"


def later(record: Record, than: Record) -> bool:
    """Whether a later driver of the run committed `record`, so that `than` rightly took an earlier one.

    A record none of whose files lie in the attempt that it names does not say when it was made.
    """
    own = not record.files or any(file.at.startswith(f"{record.attempt}/") for file in record.files)
    return own and fence_of(record) > fence_of(than)


def fence_of(record: Record) -> int:
    """Tell the fence of the driver that committed it; 0 where its attempt's name has none."""
    match = re.fullmatch(r"a(\d+)(?:\.\d+)?", record.attempt)
    return int(match[1]) if match else 0


def _read(run: Store, id: str, name: str) -> Committed | IntegrityError | None:
    try:
        return read_committed(run.child(id), id, name)
    except IntegrityError as error:
        return error


def files_of(records: Iterable[Committed]) -> list[File]:
    """List every file that the records name, once."""
    return list({(file.at, file.digest): file for one in records for file in one.record.files}.values())


def _lost(run: Store, nodes: Mapping[str, NodeContents], read: Records, taken: Iterable[Flaw]) -> list[Flaw]:
    """Find nodes that were committed and have no record of it any more."""
    return _once([*_missed(run, nodes, read), *(one for one in taken if not nodes[one.node].committed)])


def _once(flaws: Iterable[Flaw]) -> list[Flaw]:
    """Keep the first flaw of each node: several may be about one record."""
    found: dict[str, Flaw] = {}
    for one in flaws:
        found.setdefault(one.node, one)
    return list(found.values())


def _missed(run: Store, nodes: Mapping[str, NodeContents], read: Records) -> Iterator[Flaw]:
    """Find nodes whose record is lost by what is left: records that were kept, or an attempt's mark."""
    for id, node in nodes.items():
        if not node.committed and node.records:
            yield Flaw(id, RECORD, "is lost: the records that it replaced lie beside it")
        for name, entries in node.attempts.items():
            marked = any(entry.path == f"{name}/{COMMITTED}" for entry in entries)
            if marked and not _has_record(run, id, name, node, read):
                yield Flaw(id, RECORD, f"is lost: {name} committed one")


def _has_record(run: Store, id: str, name: str, node: NodeContents, read: Records) -> bool:
    """Whether the record that the attempt committed is there, or one of the same recipe that came after it."""
    records = [one.record for one in read[id].values()]
    if len(records) < len(node.records) or any(record.attempt == name for record in records):
        return True  # one that cannot be read may be it, and is reported as damaged
    try:
        attempt = read_attempt(run.child(id), name)
    except IntegrityError:
        return True  # reported where attempts are looked at
    return attempt is not None and any(attempt.fits(record.fingerprint, record.inputs) for record in records)


def _other_manifests(run: Store, nodes: Mapping[str, NodeContents], read: Records) -> Iterator[Flaw]:
    """Find manifests, by which other files are found, whose bytes are not those that the record names."""
    wanted = [
        (id, file)
        for id, node in nodes.items()
        for file in files_of(read[id].values())
        if file.at.rpartition("/")[2] == _MANIFEST and node.sizes().get(file.at) == file.bytes
    ]
    for (id, file), found in zip(wanted, answers(lambda one: _digest(run, *one), wanted), strict=True):
        if found != file.sha256:
            yield Flaw(id, file.at, f"has SHA-256 {found}, the record says {file.sha256}")


def _digest(run: Store, id: str, file: File) -> str:
    try:
        return sha256(run.child(id).read(file.at)).hexdigest()
    except NotFound:
        return "of nothing"


def _not_what_was_taken(run: Store, nodes: Mapping[str, NodeContents], read: Records) -> Iterator[Flaw]:
    """Find records that are not those which nodes of this run took, though nobody computed them again."""
    ours = f"/{run.uri.rpartition('/')[2]}/"  # the run's folder may have moved since
    for taker, records in read.items():
        taken = records[RECORD].record if RECORD in records else None
        for ref in (ref for refs in (taken.inputs.values() if taken else ()) for ref in refs):
            _, found, id = ref.uri.rpartition(ours)
            given = read.get(id, {})
            readable = id in nodes and len(given) == len(nodes[id].records)  # one that cannot be read may be it
            if not found or not readable or any(one.sha256 == ref.record_sha256 for one in given.values()):
                continue
            now = given.get(RECORD)
            if now is None:
                yield Flaw(id, RECORD, f"is lost: {taker} took one of SHA-256 {ref.record_sha256}")
            elif taken and not later(now.record, taken):
                yield Flaw(id, RECORD, f"has SHA-256 {now.sha256}, {taker} took one of {ref.record_sha256}")
