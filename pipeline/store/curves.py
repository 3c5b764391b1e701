"""Curves of a run's nodes, while they run and after, from the store alone; what cannot have changed is not asked again.

Of a committed node whose live curves are gone, or were never kept, the files of its artifact say the same.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vitpipe.infra import curves as live
from vitpipe.infra.at_once import by_key
from vitpipe.infra.curves import CURVES, CurvePoint, family, part_path
from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.node_status import NodeStatus, RunStatus
from vitpipe.pipeline.store.records import Committed, read_committed
from vitpipe.stages.artifacts import Artifact, Checkpoint, Score
from vitpipe.stages.finetune.protocol import TrialOutcome, trial_points
from vitpipe.stages.report.pretraining import log_lines
from vitpipe.stages.training.measure.metrics_log import points


@dataclass(frozen=True)
class NodeCurves:
    """What is known of one node's curves."""

    attempt: str = ""
    lines: live.Lines = field(default_factory=dict)
    note: str = ""
    """Why there are none, where that is a trouble."""

    @property
    def tags(self) -> dict[str, dict[str, tuple[CurvePoint, ...]]]:
        """The same by tag, then by what it is of."""
        found: dict[str, dict[str, tuple[CurvePoint, ...]]] = {}
        for of, tags in self.lines.items():
            for tag, line in tags.items():
                found.setdefault(tag, {})[of] = line
        return found


@dataclass
class CurveReader:
    """Reads a run's curves again and again: each look asks one request for a running node, two while its tasks leave
    theirs and one more for each of these; any other node is read when its state changes."""

    run: Store
    committed: dict[str, Committed] = field(default_factory=dict)
    """Records of the committed nodes that were looked at."""
    _known: dict[str, tuple[str, NodeCurves]] = field(default_factory=dict)
    """By node: of which state, and what was found."""
    _parts: dict[tuple[str, str], tuple[object, live.Lines]] = field(default_factory=dict)

    def read(self, status: RunStatus) -> dict[str, NodeCurves]:
        """Read what may have changed; curves by node. StorageError where the store does not answer."""
        asked = {node.node: node for node in status.nodes if self._is_open(node)}
        for id, found in by_key(lambda id: self._node(asked[id]), asked).items():
            self._known[id] = _sign(asked[id]), found
        return {node.node: self._known[node.node][1] for node in status.nodes}

    def _is_open(self, node: NodeStatus) -> bool:
        return node.state == "running" or self._known.get(node.node, ("",))[0] != _sign(node)

    def _node(self, node: NodeStatus) -> NodeCurves:
        folder = self.run.child(node.node)
        try:
            committed = read_committed(folder, node.node) if node.state == "committed" else None
            if committed:
                self.committed[node.node] = committed
            found = self._live(folder)
            if committed and family(found.attempt) != family(committed.record.attempt):
                return NodeCurves(committed.record.attempt, _of_artifact(committed.artifact()))
        except (IntegrityError, UsageError) as error:
            return NodeCurves(note=str(error))
        if not found.has_parts or committed:
            return NodeCurves(found.attempt, found.lines)
        parts = self._running(folder, found.attempt, found.lines)
        return NodeCurves(found.attempt, {**parts, **found.lines})

    def _live(self, folder: Store) -> live.Curves:
        try:
            return live.parse(folder.read(CURVES))
        except NotFound:
            return live.Curves("")
        except ValueError as error:
            do = "it is only looked at: whoever runs the node writes it anew"
            raise IntegrityError(f"read {folder.uri}/{CURVES}", str(error), do) from error

    def _running(self, folder: Store, attempt: str, done: live.Lines) -> live.Lines:
        """Read the curves of tasks that still run: of one that is done the node's own curves have all."""
        ended = {part_path(attempt, of) for of in done}
        listed = [entry for entry in folder.list(f"{attempt}/curves/") if entry.path not in ended]
        versions = {entry.path: (entry.version, entry.bytes) for entry in listed}
        changed = [path for path, sign in versions.items() if self._part(folder, path)[0] != sign]
        for path, lines in by_key(lambda path: _part(folder, path), changed).items():
            self._parts[folder.uri, path] = versions[path], lines
        return {of: tags for path in versions for of, tags in self._part(folder, path)[1].items()}

    def _part(self, folder: Store, path: str) -> tuple[object, live.Lines]:
        return self._parts.get((folder.uri, path), (None, {}))


def _sign(node: NodeStatus) -> str:
    return f"{node.state} {node.started}"


def _part(folder: Store, path: str) -> live.Lines:
    try:
        return live.parse(folder.read(path)).lines
    except (NotFound, ValueError):
        return {}  # its task writes it anew in a moment


def _of_artifact(artifact: Artifact) -> live.Lines:
    """Make the same curves from an artifact's own files. IntegrityError for a damaged one."""
    if isinstance(artifact, Checkpoint):
        lines, evaluations = (log_lines(artifact, name) for name in ("metrics.jsonl", "evaluation.jsonl"))
        return live.thinned(("", step, clock, values) for step, clock, values in points(lines, evaluations))
    return live.thinned(_trials(artifact)) if isinstance(artifact, Score) else {}


def _trials(score: Score) -> Iterator[tuple[str, int, float, Mapping[str, float | None]]]:
    for file in score.files:
        if file.path.startswith("trials/"):
            content = json.loads(score.read(file.path))
            fields = {name: content[name] for name in TrialOutcome.model_fields if name in content}
            yield from trial_points(str(content["trial"]), TrialOutcome.model_validate(fields))
