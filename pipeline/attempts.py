"""What earlier drivers left of a node: `{node}/a{fence}[.{restart}]/attempt.json` and the finished pieces beside it.

Knows the layout of attempts, not what a piece is: the catalog's regular expression says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import IntegrityError, NotFound
from infra.storage.store import Store
from pipeline.graph import Node
from stages.record import InputRef

HEADER = "attempt.json"
_NAME = re.compile(r"a(\d+)(?:\.(\d+))?")
_FILE = re.compile(rf"({_NAME.pattern})/(.+)")

Refs = Mapping[str, tuple[InputRef, ...]]


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

    def fits(self, fingerprint: str, inputs: Refs) -> bool:
        """Whether it computed the very thing that is wanted now."""
        return self.fingerprint == fingerprint and digests(self.inputs) == digests(inputs)


def digests(inputs: Refs) -> dict[str, list[str]]:
    """Record digests of all inputs: what makes two runs of one recipe the same."""
    return {name: [ref.record_sha256 for ref in refs] for name, refs in inputs.items() if refs}


def header(node: Node, fingerprint: str, recipe: Mapping[str, Any], inputs: Refs, **facts: Any) -> bytes:
    """The content of `attempt.json`."""
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
    return json.dumps(fields, indent=1).encode()


def read_attempt(node: Store, name: str) -> Attempt | None:
    """One attempt by its name, its pieces not counted; None when it is not there."""
    match = _NAME.fullmatch(name)
    try:
        return _read(node, name, (int(match[1]), int(match[2] or 0)), 0) if match else None
    except NotFound:
        return None


def list_attempts(node: Store, pieces: str | None) -> tuple[Attempt, ...]:
    """Every attempt in the node's folder, newest first. IntegrityError for a damaged `attempt.json`, or a lost one."""
    files: dict[str, list[str]] = {}
    order: dict[str, tuple[int, int]] = {}
    for entry in node.list("a"):
        if match := _FILE.fullmatch(entry.path):
            name, fence, restart, path = match.groups()
            files.setdefault(name, []).append(path)
            order[name] = (int(fence), int(restart or 0))
    for name, paths in files.items():
        if HEADER not in paths and (lost := _count(paths, pieces)):  # it is written before all else, and deleted last
            found = f"it is lost, and beside it are {lost} finished pieces"
            do = f"restore it from a copy, or remove {node.uri}/{name} to do without them"
            raise IntegrityError(f"read {node.uri}/{name}/{HEADER}", found, do)
    begun = sorted((name for name in files if HEADER in files[name]), key=lambda name: order[name], reverse=True)
    return tuple(_read(node, name, order[name], _count(files[name], pieces)) for name in begun)


def earlier(attempts: Sequence[Attempt], fingerprint: str, inputs: Refs) -> tuple[str, ...]:
    """Names of the attempts whose finished pieces may be adopted, newest first."""
    return tuple(attempt.name for attempt in attempts if attempt.fits(fingerprint, inputs))


def _count(paths: Sequence[str], pieces: str | None) -> int:
    return sum(re.fullmatch(pieces, path) is not None for path in paths) if pieces else 0


def _read(node: Store, name: str, order: tuple[int, int], pieces: int) -> Attempt:
    where = f"{name}/{HEADER}"
    try:
        fields = json.loads(node.read(where))
        inputs = {key: tuple(InputRef(**ref) for ref in refs) for key, refs in fields["inputs"].items()}
        return Attempt(name, *order, fields["fingerprint"], fields["recipe"], inputs, pieces)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"read {node.uri}/{where}", f"it is damaged: {error!r}", f"remove {node.uri}/{name} and run again"
        ) from error
