"""Hands the curves of runs on to a tracker of experiments, each point once: what a tracker has is not sent again.

A node of a run is one run there. Knows no tracker: each is a file beside this one.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from vitpipe.infra.curves import CurvePoint
from vitpipe.infra.errors import StorageError, UsageError, VitpipeError
from vitpipe.pipeline.store.followed import Look


@dataclass(frozen=True)
class TrackedNode:
    """One node as a tracker is to know it."""

    run: str
    node: str
    id: str
    """The same whenever this node of this run is meant, from whatever machine."""
    stage: str
    params: Mapping[str, Any]
    """The node's config, one name a field: `optimizer.peak_lr`."""
    about: Mapping[str, str]
    """Where the run lies, and which node it is."""


@dataclass(frozen=True)
class Row:
    """Values of one step."""

    step: int
    clock: float
    values: Mapping[str, float]


class Sent(Protocol):
    """One node in a tracker, open to be added to."""

    last: dict[str, int]
    """The newest step that is there, by tag."""

    def send(self, rows: list[Row]) -> None:
        """Add rows in this order, and remember in `last` and beyond this process that they are there."""

    def close(self, state: str, results: Mapping[str, float]) -> None:
        """Say how the node ended, and with which results."""


Open = Callable[[TrackedNode], Sent]


@dataclass
class Tracking:
    """What was sent of some runs."""

    open: Open
    sent: int = 0
    """Values that were sent by this process."""
    _nodes: dict[tuple[str, str], Sent] = field(default_factory=dict)
    _closed: set[tuple[str, str]] = field(default_factory=set)

    def show(self, look: Look) -> None:
        """Send what the run's curves gained, and close the nodes that are done. StorageError of the tracker."""
        if not look.status or not look.graph:
            return
        states = {node.node: node for node in look.status.nodes}
        for node, found in look.curves.items():
            key, lines = (look.uri, node), dict(_named(found.lines))
            status = states[node]
            results = {} if status.score is None else {f"score/{status.metric or 'value'}": status.score}
            if key in self._closed or not (lines or results):
                continue
            with told():
                here = self._nodes.get(key) or self._nodes.setdefault(key, self.open(_tracked(look, node)))
                rows = _rows(lines, here.last)
                if rows:
                    here.send(rows)
                self.sent += sum(len(row.values) for row in rows)
                if status.state == "committed":
                    here.close("committed", results)
                    self._closed.add(key)

    def close(self) -> None:
        """Let go of the nodes that are not done; they go on at the next call."""
        for key, here in self._nodes.items():
            if key not in self._closed:
                with told():
                    here.close("running", {})


@contextmanager
def told() -> Iterator[None]:
    """Around a tracker's library: whatever it raises is a trouble of the tracker, and of nothing else."""
    try:
        yield
    except VitpipeError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {str(error).strip()[:300] or 'it gave no reason'}"
        do = "see that the tracker can be reached and lets you write, then type the same again: it goes on"
        raise StorageError("send curves to the tracker", found, do) from error


def _named(lines: Mapping[str, Mapping[str, tuple[CurvePoint, ...]]]) -> Iterator[tuple[str, tuple[CurvePoint, ...]]]:
    for of, tags in lines.items():
        yield from ((f"{of}/{tag}" if of else tag, line) for tag, line in tags.items())


def _rows(lines: Mapping[str, tuple[CurvePoint, ...]], last: Mapping[str, int]) -> list[Row]:
    gathered: dict[tuple[int, float], dict[str, float]] = {}
    for tag, line in lines.items():
        for point in line:
            if point.step > last.get(tag, -1):
                gathered.setdefault((point.step, point.clock), {})[tag] = point.value
    return [Row(step, clock, values) for (step, clock), values in sorted(gathered.items())]


def _tracked(look: Look, node: str) -> TrackedNode:
    assert look.graph
    spec = look.graph.nodes[node]
    id = hashlib.sha256(f"{look.uri}/{node}".encode()).hexdigest()[:16]
    about = {"vitpipe_run": look.uri, "vitpipe_node": node, "stage": spec.stage.name}
    params = dict(_flat(spec.config.model_dump(mode="json", exclude_none=True)))
    return TrackedNode(look.name, node, id, spec.stage.name, params, about)


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def newest(last: dict[str, int], rows: list[Row]) -> None:
    """Raise `last` by what was sent."""
    for row in rows:
        last.update({tag: max(row.step, last.get(tag, -1)) for tag in row.values})


def library(name: str, package: str) -> Any:
    """Import a tracker's library. UsageError, with the command, where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        do = f"install it in this environment: pip install 'vitpipe[{name}]'"
        raise UsageError(f"track a run with {name}", f"its library is not installed ({error})", do) from error


def plain(tag: str) -> str:
    """Leave out of a tag what trackers do not take."""
    return re.sub(r"[^\w./ -]", "_", tag)
