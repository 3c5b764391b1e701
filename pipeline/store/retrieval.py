"""List, fetch and verify what a run committed. Believes only records; every byte is checked against them."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.names import checked
from vitpipe.infra.storage.store import Digest, Store
from vitpipe.pipeline.store.contents import committed_nodes, contents, is_record, list_run, open_run
from vitpipe.pipeline.store.copies import records_in_run, sound
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.soundness import difference, examine, files_of, lost_records
from vitpipe.stages.artifacts import File
from vitpipe.stages.record import damaged

FILES_AT_ONCE = 4
READ_BYTES = 8 << 20

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, the file just finished or an empty text), from several threads in turn."""


def _nobody(done: int, total: int, path: str) -> None:
    pass


@dataclass(frozen=True)
class CommittedFile:
    """One file of a committed artifact."""

    node: str
    kind: str
    """The artifact's: ShardSet, Checkpoint, Weights, Score, Report."""
    path: str
    bytes: int
    sha256: str
    uri: str
    """Where it lies: the object's own name, which holds the attempt that wrote it."""


@dataclass(frozen=True)
class CheckedFile:
    """The outcome of checking one file."""

    node: str
    path: str
    at: str
    bytes: int
    problem: str | None
    """None when it is what the record says."""


def list_files(run_uri: str, node: str | None = None) -> list[CommittedFile]:
    """List every file of every committed node, or of one and its siblings. Errors as `committed_artifacts`."""
    return [
        CommittedFile(
            id, committed.record.output["kind"], file.path, file.bytes, file.sha256, f"{run_uri}/{id}/{file.at}"
        )
        for id, committed in committed_artifacts(run_uri, "list the artifacts of", node)
        for file in committed.record.files
    ]


def get(run_uri: str, node: str, folder: Path, progress: Progress = _nobody, only: Sequence[str] = ()) -> list[Path]:
    """Copy an artifact's files to `folder/{path}`, verified; right files there are kept, partial ones are resumed.

    `only` are patterns, as a shell has them, one of which a path must match; `*` also stands for `/`.
    Errors: UsageError for an unknown run or node, a node with siblings, or a pattern that no file matches;
    IntegrityError for a missing or changed object; StorageError for a disk or a store that fails.
    """
    found = dict(committed_artifacts(run_uri, "get", node))
    if len(found) > 1:
        many = f"it stands for {len(found)} siblings"
        raise UsageError(f"get {node!r} of {run_uri}", many, f"name one of them: {', '.join(found)}")
    ((id, committed),) = found.items()
    run = open_run(run_uri, "get")
    files = _matching(committed.record.files, only, f"get {node} of {run_uri}")
    with watched(progress, files) as finished:

        def fetch(file: File) -> Path:
            local = folder / _inside(file, id, run)
            with _named(run, id, file):
                run.child(id).download(file.at, local, expect=file.digest)
            finished(file)
            return local

        return list(answers(fetch, files, FILES_AT_ONCE))


def _matching(files: Sequence[File], only: Sequence[str], asked: str) -> list[File]:
    for pattern in only:
        if not any(fnmatchcase(file.path, pattern) for file in files):
            listed = ", ".join(file.path for file in files[:5])
            found = f"none of its {len(files)} files matches {pattern!r}; some are {listed}"
            raise UsageError(asked, found, "give a pattern as a shell has them, such as 'native/*'")
    return [file for file in files if not only or any(fnmatchcase(file.path, pattern) for pattern in only)]


def verify(run_uri: str, node: str | None = None, progress: Progress = _nobody) -> list[CheckedFile]:
    """Read every byte of every committed node, or of one, and compare it with the records. `fault` judges the result.

    A record that is damaged, lost, or not the one that another node took is a finding too; replaced records that were
    kept count as well. Errors: UsageError for an unknown run or node; StorageError.
    """
    run = open_run(run_uri, "verify")
    wanted = checked(node) if node else ""
    nodes = contents(run)
    records, flaws = examine(run, nodes)
    mine = {id for id in nodes if not wanted or f"{id}/".startswith(f"{wanted}/")}
    wrong = [flaw for flaw in flaws if flaw.node in mine and is_record(flaw.path)]
    if not wrong:
        committed_nodes(run, "verify", node)  # raises UsageError where no such node is committed
    work = [(id, file) for id in sorted(mine) for file in files_of(records[id].values())]
    with watched(progress, [file for _, file in work]) as finished:

        def check(one: tuple[str, File]) -> CheckedFile:
            id, file = one
            problem = file_problem(run.child(id), file)
            finished(file)
            return CheckedFile(id, file.path, file.at, file.bytes, problem)

        return [*(CheckedFile(one.node, one.path, one.path, 0, one.problem) for one in wrong), *answers(check, work)]


def fault(run_uri: str, findings: Sequence[CheckedFile]) -> IntegrityError | None:
    """Make the error that names what `verify` found wrong; None when nothing is."""
    wrong = [one for one in findings if one.problem]
    if not wrong:
        return None
    records = [one for one in wrong if is_record(one.at)]
    found = [f"{one.node}/{one.path} {one.problem}" for one in records[:5]] + _more(len(records))
    if files := [one for one in wrong if not is_record(one.at)]:
        compared = sum(not is_record(one.at) for one in findings)
        named = [f"{one.node}/{one.path} ({one.node}/{one.at}) {one.problem}" for one in files[:5]] + _more(len(files))
        found.append(f"{len(files)} of {compared} files are not what the records say: {'; '.join(named)}")
    do = "restore them from a copy, or run under another `name`"
    return IntegrityError(f"verify {run_uri}", f"it is damaged: {'; '.join(found)}", do)


def _more(named: int) -> list[str]:
    return [f"and {named - 5} more"] if named > 5 else []


def committed_artifacts(run_uri: str, asked: str, node: str | None) -> Iterator[tuple[str, Committed]]:
    """Yield the records of all committed nodes, or of one and its siblings.

    Errors: UsageError for an unknown run or node; IntegrityError for a damaged record, or a lost one.
    """
    run = open_run(run_uri, asked)
    seen = list_run(run, checked(node) if node else "")
    if lost := lost_records(run, seen.nodes):
        raise damaged(f"{run.uri}/{lost[0].node}", f"it {lost[0].problem}", lost[0].node)
    yield from sound(records_in_run(run, seen, committed_nodes(run, asked, node, seen))).items()


def _inside(file: File, node: str, run: Store) -> str:
    """Return the file's path once it is proved not to lead out of the folder that it is copied to."""
    try:
        return checked(file.path)
    except UsageError as error:
        found = f"its record names {file.path!r}: {error.found}"
        do = "do not trust this run: no vitpipe writes such a name"
        raise IntegrityError(f"get {node} of {run.uri}", found, do) from error


@contextmanager
def _named(run: Store, node: str, file: File) -> Iterator[None]:
    """Turn a missing object into an IntegrityError: the record says that it is there."""
    try:
        yield
    except NotFound as error:
        found = f"the record lists it at {file.at}, and there is no such object"
        do = "restore it from a copy, or run under another `name`"
        raise IntegrityError(f"read {file.path} of {run.uri}/{node}", found, do) from error


def file_problem(node: Store, file: File) -> str | None:
    """Read a file of a node for how it differs from its record; None while it does not."""
    found = _digest(node, file)
    if found is not None and found != file.digest:
        found = _digest(node, file)  # a bit may flip on the way; only what comes twice is held against the object
    if found is None or found.bytes != file.bytes:
        return difference(file, found.bytes if found else None)
    if found.sha256 != file.sha256:
        return f"has SHA-256 {found.sha256}, the record says {file.sha256}"
    return None


def _digest(node: Store, file: File) -> Digest | None:
    """Read the object in pieces for its size and SHA-256; None when it is missing."""
    digest, read = hashlib.sha256(), 0
    try:
        size = node.size(file.at)
        if size is None or size != file.bytes:
            return None if size is None else Digest(size, "")
        while read < size:
            piece = node.read(file.at, read, READ_BYTES)
            if not piece:
                break
            digest.update(piece)
            read += len(piece)
    except NotFound:
        return None
    return Digest(read, digest.hexdigest())


@contextmanager
def watched(
    progress: Progress, files: Iterable[File], way: traffic.Kind = "read_bytes"
) -> Iterator[Callable[[File], None]]:
    """Report bytes as they come, or go; the block calls the function it is given with each file that is finished."""
    total = sum(file.bytes for file in files)
    lock, moved, done = threading.Lock(), 0, 0

    def tell(path: str) -> None:
        progress(min(total, max(moved, done)), total, path)

    def on_traffic(kind: traffic.Kind, amount: float) -> None:
        nonlocal moved
        if kind == way:
            with lock:
                moved += int(amount)
                tell("")

    def finished(file: File) -> None:
        nonlocal done
        with lock:
            done += file.bytes
            tell(file.path)

    traffic.listen(on_traffic)
    try:
        yield finished
    finally:
        traffic.unlisten(on_traffic)
