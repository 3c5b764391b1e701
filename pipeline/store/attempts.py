"""What earlier drivers left of a node: `{node}/a{fence}[.{restart}]/attempt.json`, and finished pieces beside it.

Knows the layout of attempts, not what a piece is: the catalog's regular expression says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vitpipe.infra.errors import IntegrityError, NotFound
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Node
from vitpipe.stages.artifacts import Origin
from vitpipe.stages.record import Record, records_in
from vitpipe.stages.seal import SEAL, broken, sealed

HEADER = "attempt.json"
ERROR = "error.json"
COMMITTED = "committed/done"
"""Mark in an attempt that its record was committed: if the record is lost, the mark shows that there was one."""
_NAME = re.compile(r"a(\d+)(?:\.(\d+))?")
_FILE = re.compile(rf"({_NAME.pattern})/(.+)")

Refs = Mapping[str, tuple[Origin, ...]]


@dataclass(frozen=True)
class Attempt:
    """One try at a node, as its `attempt.json` describes it."""

    name: str
    fence: int
    restart: int
    fingerprint: str
    recipe: Mapping[str, Any]
    inputs: Refs
    pieces: int
    """Finished pieces in its folder that another attempt may adopt."""
    committed: bool = False
    """Whether its mark says that a record was committed: its own, or an equal one that was quicker."""
    started: str = ""

    def fits(self, fingerprint: str, inputs: Refs) -> bool:
        """Whether the attempt computed the result with this fingerprint from these inputs."""
        return self.fingerprint == fingerprint and digests(self.inputs) == digests(inputs)


def digests(inputs: Refs) -> dict[str, list[str]]:
    """List the record digests of all inputs: two runs of one recipe are the same if these are."""
    return {name: [ref.record_sha256 for ref in refs] for name, refs in inputs.items() if refs}


def header(node: Node, fingerprint: str, recipe: Mapping[str, Any], inputs: Refs, **facts: Any) -> bytes:
    """Write the content of `attempt.json`, sealed."""
    fields = {
        "node": node.id,
        "stage": node.stage.name,
        "fingerprint": fingerprint,
        "recipe": recipe,
        "config": node.config.model_dump(mode="json"),
        "resources": node.resources.model_dump(mode="json"),
        "inputs": {name: [ref.model_dump() for ref in refs] for name, refs in inputs.items()},
        **facts,
    }
    return sealed(fields)


def read_attempt(node: Store, name: str, committed: bool | None = None) -> Attempt | None:
    """Read one attempt by its name, its pieces not counted; None when it is not there.

    `committed` says whether its mark is there, where a listing has shown that.
    """
    if not _NAME.fullmatch(name):
        return None
    try:
        found = _read(node, name, _order(name), 0)
    except NotFound:
        return None
    marked = node.size(f"{name}/{COMMITTED}") is not None if committed is None else committed
    return replace(found, committed=marked)


def list_attempts(node: Store, pieces: str | None) -> tuple[Attempt, ...]:
    """List every attempt in the node's folder, newest first. IntegrityError for a damaged or lost `attempt.json`."""
    files: dict[str, list[str]] = {}
    for entry in node.list("a"):
        if match := _FILE.fullmatch(entry.path):
            files.setdefault(match[1], []).append(match[4])
    return attempts_of(node, files, pieces)


def attempts_of(
    node: Store, files: Mapping[str, Sequence[str]], pieces: str | None, recorded: Sequence[Record] = ()
) -> tuple[Attempt, ...]:
    """Do as `list_attempts` from a listing: the paths in each attempt's folder, by the attempt's name.

    An attempt that one of the `recorded` is of needs no reading: its record says the same.
    """
    known = {record.attempt: record for record in recorded}

    def one(name: str, paths: Sequence[str]) -> Attempt | None:
        if name in known:
            return _of_record(name, known[name], _count(paths, pieces))
        return _attempt(node, name, paths, _count(paths, pieces))

    found = (one(name, paths) for name, paths in files.items())
    begun = (replace(one, committed=COMMITTED in files[one.name]) for one in found if one is not None)
    return tuple(sorted(begun, key=lambda one: (one.fence, one.restart), reverse=True))


def earlier(attempts: Sequence[Attempt], fingerprint: str, inputs: Refs) -> tuple[Attempt, ...]:
    """Choose the attempts whose finished pieces may be adopted, newest first."""
    return tuple(attempt for attempt in attempts if attempt.fits(fingerprint, inputs))


def _attempt(node: Store, name: str, paths: Sequence[str], pieces: int) -> Attempt | None:
    """Read one attempt; None for one that was never begun."""
    order = _order(name)
    if HEADER in paths:
        return _read(node, name, order, pieces)
    if not pieces:
        return None
    if record := _naming(node, name):  # a record that names some of its files has the same recipe and inputs
        return _of_record(name, record, pieces)
    found = f"it is lost, and beside it are {pieces} finished pieces"  # it is written before all else, deleted last
    raise IntegrityError(f"read {node.uri}/{name}/{HEADER}", found, _remedy(node, name))


def _of_record(name: str, record: Record, pieces: int) -> Attempt:
    return Attempt(
        name, *_order(name), record.fingerprint, record.recipe, record.inputs, pieces, started=record.started
    )


def _order(name: str) -> tuple[int, int]:
    fence, _, restart = name.removeprefix("a").partition(".")
    return int(fence), int(restart or 0)


def _count(paths: Sequence[str], pieces: str | None) -> int:
    """Count the pieces; with a regular expression that has groups, files whose groups are equal count once."""
    found = (re.fullmatch(pieces, path) for path in paths) if pieces else ()
    return len({match[match.lastindex or 0] for match in found if match})


def _read(node: Store, name: str, order: tuple[int, int], pieces: int) -> Attempt:
    where = f"{name}/{HEADER}"
    try:
        data = node.read(where)
        fields = parse_object(data)
        if SEAL in fields and (why := broken(data, fields)):
            raise ValueError(why)
        inputs = {key: tuple(Origin(**ref) for ref in refs) for key, refs in fields["inputs"].items()}
        found = Attempt(name, *order, fields["fingerprint"], fields["recipe"], inputs, pieces)
        return replace(found, started=str(fields.get("started", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        raise IntegrityError(f"read {node.uri}/{where}", f"it is damaged: {why}", _remedy(node, name)) from error


def _naming(node: Store, name: str) -> Record | None:
    """Find a record of the node that names a file of this attempt. IntegrityError for a damaged record."""
    for record in records_in(node):
        if any(file.at.startswith(f"{name}/") for file in record.files):
            return record
    return None


def _remedy(node: Store, name: str) -> str:
    """Say what to do without a readable `attempt.json` and lose nothing: a record may name files beside it."""
    if _naming(node, name):
        return f"restore it from a copy, or remove {node.uri}/{name}/{HEADER} alone: the node's record says the same"
    return f"restore it from a copy, or move {node.uri}/{name} out of the run: no record names what is in it"
