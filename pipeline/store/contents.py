"""What a run's folder holds, from one listing: nodes, their records, their attempts' files.

Goes by names alone; knows no spec, so that nodes which are no longer in the YAML are seen too.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vitpipe.infra.at_once import by_key
from vitpipe.infra.curves import CURVES
from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.infra.progress import PROGRESS, RESTARTING
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Entry, Store
from vitpipe.pipeline.spec.places import is_local
from vitpipe.pipeline.spec.top_level import NAME
from vitpipe.pipeline.store.submitted import read_submission
from vitpipe.stages.record import RECORDS

_NAME = NAME.pattern
_ATTEMPT = r"a\d+(?:\.\d+)?"
_OBJECT = re.compile(
    rf"(?P<node>{_NAME}(?:/(?!{_ATTEMPT}/){_NAME})?)/"
    rf"(?:(?P<record>{RECORDS})|(?P<sign>{'|'.join(map(re.escape, (PROGRESS, RESTARTING, CURVES)))})"
    r"|(?P<attempt>" + _ATTEMPT + r")/(?P<path>.+))"
)
SHARED = "_shared"
"""Folder of what several nodes need; no node has such a name."""
_RUN_MARKS = ("spec.yaml", "lease.json")
_LOOK_AT = 200
"""Folders beside a mistyped run that are looked into."""
_PILE = re.compile(rf"(?:events|{SHARED})/|(?:{_NAME}/){{1,2}}{_ATTEMPT}/(?=(.*))")
_LOGS_END = "logs0"
"""Sorts behind all logs of an attempt, and with them behind its header, its mark and its error."""
PILE_FILES = 1000
"""Files of one such folder that a brief look passes over one by one: as many as one request names."""


@dataclass
class NodeContents:
    """One node's folder. Paths of entries are relative to it."""

    id: str
    records: list[str] = field(default_factory=list)
    """`record.json` and kept ones."""
    attempts: dict[str, list[Entry]] = field(default_factory=dict)
    """By attempt: every file below it."""
    signs: dict[str, str | None] = field(default_factory=dict)
    """The state of each other file that is looked for in its folder: records, progress, curves."""

    @property
    def committed(self) -> bool:
        """Whether its folder has a record."""
        return "record.json" in self.records

    @property
    def newest(self) -> str:
        """The newest attempt's name, its gang's restarts left aside; empty where there is none."""
        fences = (int(name.removeprefix("a").partition(".")[0]) for name in self.attempts)
        return f"a{max(fences)}" if self.attempts else ""

    def paths(self) -> dict[str, list[str]]:
        """List the paths in each attempt's folder, by the attempt's name."""
        return {
            name: [entry.path.removeprefix(f"{name}/") for entry in entries] for name, entries in self.attempts.items()
        }

    def sizes(self) -> dict[str, int]:
        """List the size in bytes of every attempt's files, by their place in the node's folder."""
        return {entry.path: entry.bytes for entries in self.attempts.values() for entry in entries}


def is_record(path: str) -> bool:
    """Whether a file in a node's folder is its record, or one that was replaced and kept."""
    return re.fullmatch(RECORDS, path) is not None


def open_run(uri: str, asked: str, also: str = "", begun: bool = True) -> Store:
    """Open the folder of a run that exists. UsageError with the nearest name for any other.

    `also` is where it was looked for before. One that was only submitted is refused, unless it need not have `begun`;
    IntegrityError where word of that cannot be read.
    """
    run = open_store(uri)
    if is_run(run):
        return run
    waiting = read_submission(run)
    if waiting and not begun:
        return run
    if waiting:
        raise UsageError(f"{asked} {run.uri}", f"it was {waiting}", f"wait for it: vitpipe status {run.uri} --watch")
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


@dataclass(frozen=True)
class RunContents:
    """What one listing of a run shows."""

    nodes: dict[str, NodeContents]
    """Every node of which anything lies there, by id."""
    loose: frozenset[str]
    """Names of the files right below the run."""

    def of(self, id: str) -> NodeContents:
        """What lies there of a node, perhaps nothing."""
        return self.nodes.get(id) or NodeContents(id)


def list_run(run: Store, node: str = "", brief: bool = False) -> RunContents:
    """List a run, a thousand names a request; with `node`, only that one and its siblings.

    A `brief` look sees records, progress, and of each attempt what sorts up to its logs, but not all of many files.
    """
    nodes: dict[str, NodeContents] = {}
    loose = set()
    prefix = f"{node}/" if node else ""
    for entry in _briefly(run, prefix) if brief and not is_local(run.uri) else run.list(prefix):
        match = _OBJECT.fullmatch(entry.path)
        if not match:
            loose |= {entry.path} if "/" not in entry.path else set()
            continue
        here = nodes.setdefault(match["node"], NodeContents(match["node"]))
        if match["attempt"]:
            inside = Entry(f"{match['attempt']}/{match['path']}", entry.bytes, state=entry.state)
            here.attempts.setdefault(match["attempt"], []).append(inside)
        else:
            here.records += [match["record"]] if match["record"] else []
            here.signs[match["record"] or match["sign"]] = entry.state
    return RunContents(nodes, frozenset(loose))


def contents(run: Store, node: str = "") -> dict[str, NodeContents]:
    """List every node with a record or an attempt, by id; with `node`, only that one and its siblings."""
    return list_run(run, node).nodes


def _briefly(run: Store, prefix: str) -> Iterator[Entry]:
    """List, and where a pile of files goes on for more than one answer, ask on behind it."""
    pile, seen, after = "", 0, ""
    again = True
    while again:
        again = False
        for entry in run.list(prefix, after):
            match = _PILE.match(entry.path)
            here = match[0] if match and (match[1] is None or match[1] > _LOGS_END) else ""
            pile, seen = here, seen + 1 if here == pile else 1
            if here and seen > PILE_FILES:
                after, again = f"{here[:-1]}0", True  # the first name behind all that begin so
                break
            yield entry


def highest_fence(run: Store) -> int:
    """Find the highest fence of a run's attempts, from which numbers go on if its lease is lost; 0 in a new run."""
    attempts = (name for node in contents(run).values() for name in node.attempts)
    return max((int(name.removeprefix("a").partition(".")[0]) for name in attempts), default=0)


def committed_nodes(
    run: Store, asked: str, node: str | None, seen: RunContents | None = None
) -> dict[str, NodeContents]:
    """List the nodes that are done: all, or `node` and its siblings. UsageError when there is none of that name.

    `seen` is a listing of them that there is already.
    """
    seen = seen or list_run(run, node or "")
    found = {id: here for id, here in seen.nodes.items() if here.committed}
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
