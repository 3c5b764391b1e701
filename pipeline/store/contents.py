"""What a run's folder holds, from one listing: nodes, their records, their attempts' files.

Goes by names alone; knows no spec, so that nodes which are no longer in the YAML are seen too.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Entry, Store
from vitpipe.pipeline.spec.top_level import NAME
from vitpipe.stages.record import RECORDS

_NAME = NAME.pattern
_ATTEMPT = r"a\d+(?:\.\d+)?"
_OBJECT = re.compile(
    rf"(?P<node>{_NAME}(?:/(?!{_ATTEMPT}/){_NAME})?)/(?:(?P<record>{RECORDS})|(?P<attempt>{_ATTEMPT})/(?P<path>.+))"
)
SHARED = "_shared"
"""Folder of what several nodes need; no node has such a name."""
_RUN_MARKS = ("spec.yaml", "lease.json")
_LOOK_AT = 200
"""Folders beside a mistyped run that are looked into."""


@dataclass
class NodeContents:
    """One node's folder. Paths of entries are relative to it."""

    id: str
    records: list[str] = field(default_factory=list)
    """`record.json` and kept ones."""
    attempts: dict[str, list[Entry]] = field(default_factory=dict)
    """By attempt: every file below it."""

    @property
    def committed(self) -> bool:
        """Whether its folder has a record."""
        return "record.json" in self.records

    def sizes(self) -> dict[str, int]:
        """List the size in bytes of every attempt's files, by their place in the node's folder."""
        return {entry.path: entry.bytes for entries in self.attempts.values() for entry in entries}


def is_record(path: str) -> bool:
    """Whether a file in a node's folder is its record, or one that was replaced and kept."""
    return re.fullmatch(RECORDS, path) is not None


def open_run(uri: str, asked: str, also: str = "") -> Store:
    """Open the folder of a run that exists. UsageError with the nearest name for any other.

    `also` is where it was looked for before.
    """
    run = open_store(uri)
    if is_run(run):
        return run
    parent, _, name = run.uri.rpartition("/")
    known = set() if parent.count("/") < 2 else _runs(open_store(parent), name)
    nor = f", nor at {also}" if also else ""
    raise UsageError(f"{asked} {run.uri}", f"no run was ever started there{nor}", near(name, known))


def is_run(run: Store) -> bool:
    """Whether a run was ever started in this folder."""
    return any(run.size(mark) is not None for mark in _RUN_MARKS)


def near(name: str, known: Iterable[str]) -> str:
    """Say what a person may have meant, as a remedy."""
    names = sorted(known)
    if not names:
        return "check the store and the name"
    close = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"did you mean {close[0]!r}? There are: {listed}" if close else f"there are: {listed}"


def contents(run: Store, node: str = "") -> dict[str, NodeContents]:
    """List every node with a record or an attempt, by id; with `node`, only that one and its siblings."""
    found: dict[str, NodeContents] = {}
    for entry in run.list(f"{node}/" if node else ""):
        match = _OBJECT.fullmatch(entry.path)
        if not match:
            continue
        here = found.setdefault(match["node"], NodeContents(match["node"]))
        if match["record"]:
            here.records.append(match["record"])
        else:
            inside = Entry(f"{match['attempt']}/{match['path']}", entry.bytes)
            here.attempts.setdefault(match["attempt"], []).append(inside)
    return found


def highest_fence(run: Store) -> int:
    """Find the highest fence of a run's attempts, from which numbers go on if its lease is lost; 0 in a new run."""
    attempts = (name for node in contents(run).values() for name in node.attempts)
    return max((int(name.removeprefix("a").partition(".")[0]) for name in attempts), default=0)


def committed_nodes(run: Store, asked: str, node: str | None) -> dict[str, NodeContents]:
    """List the nodes that are done: all, or `node` and its siblings. UsageError when there is none of that name."""
    found = {id: here for id, here in contents(run, node or "").items() if here.committed}
    if node and not found:
        known = {id for id, here in contents(run).items() if here.committed}
        raise UsageError(f"{asked} {node!r} of {run.uri}", "no node of that name is committed", near(node, known))
    return found


def _runs(store: Store, name: str) -> set[str]:
    """Name the runs in a store, of thousands those whose names are nearest."""
    try:
        folders = [one for one in store.folders() if NAME.fullmatch(one)]
    except (UsageError, StorageError):
        return set()
    folders.sort(key=lambda one: -difflib.SequenceMatcher(None, one, name).quick_ratio())
    marks = by_key(lambda one: _may_be_run(store.child(one)), folders[:_LOOK_AT])
    return {one for one, may_be in marks.items() if may_be}


def _may_be_run(folder: Store) -> bool:
    try:
        return is_run(folder)
    except StorageError:
        return False  # somebody else's: a name that was not meant
