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
from vitpipe.pipeline.store.contents import NodeContents, list_run
from vitpipe.pipeline.store.copies import Found, records_in_run
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.records import Committed
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


Signs = tuple[bool, str | None, str | None]
"""Of a node: whether it is committed, and the states of its curves and its record; None where a listing has none."""


@dataclass
class CurveReader:
    """Reads a run's curves again and again: a look asks for one listing, and for what that shows to have changed."""

    run: Store
    committed: dict[str, Committed] = field(default_factory=dict)
    """Records of the committed nodes that were looked at."""
    _known: dict[str, tuple[Signs, live.Curves, NodeCurves]] = field(default_factory=dict)
    """By node: of which signs, what its own curves are, and what is known with those of its tasks."""
    _parts: dict[tuple[str, str], tuple[str | None, live.Lines]] = field(default_factory=dict)

    def read(self, status: RunStatus) -> dict[str, NodeCurves]:
        """Read what changed; curves by node. StorageError where the store does not answer."""
        seen = list_run(self.run, brief=True)
        done = {node.node for node in status.nodes if node.state == "committed"}
        signs = {node.node: _signs(seen.of(node.node), node.node in done) for node in status.nodes}
        open_ = [id for id in signs if id not in self._known or self._known[id][0] != signs[id]]
        records = records_in_run(self.run, seen, [id for id in open_ if id in done])
        self.committed |= {id: one for id, one in records.items() if isinstance(one, Committed)}
        for id, found in by_key(lambda id: self._own(seen.of(id), records.get(id)), open_).items():
            self._known[id] = signs[id], *found
        running = [id for id, (_, own, _) in self._known.items() if own.has_parts and id in signs and id not in done]
        whole = by_key(lambda id: self._with_parts(seen.of(id), self._known[id][1]), running)
        return {id: whole.get(id, self._known[id][2]) for id in signs}

    def _own(self, node: NodeContents, record: Found) -> tuple[live.Curves, NodeCurves]:
        try:
            found = self._live(node)
            if isinstance(record, Committed) and family(found.attempt) != family(record.record.attempt):
                return live.Curves(""), NodeCurves(record.record.attempt, _of_artifact(record.artifact()))
        except (IntegrityError, UsageError) as error:
            return live.Curves(""), NodeCurves(note=str(error))
        return found, NodeCurves(found.attempt, found.lines)

    def _live(self, node: NodeContents) -> live.Curves:
        folder = self.run.child(node.id)
        if CURVES not in node.signs:
            return live.Curves("")
        try:
            return live.parse(folder.read(CURVES))
        except NotFound:
            return live.Curves("")
        except ValueError as error:
            do = "it is only looked at: whoever runs the node writes it anew"
            raise IntegrityError(f"read {folder.uri}/{CURVES}", str(error), do) from error

    def _with_parts(self, node: NodeContents, own: live.Curves) -> NodeCurves:
        """Add the curves of tasks that still run: of one that is done the node's own curves have all."""
        folder, ended = self.run.child(node.id), {part_path(own.attempt, of) for of in own.lines}
        listed = node.attempts.get(own.attempt, ())
        states = {one.path: one.state for one in listed if one.path.startswith(f"{own.attempt}/curves/")}
        paths = [path for path in states if path not in ended]
        changed = [path for path in paths if states[path] is None or self._part(node, path)[0] != states[path]]
        for path, lines in by_key(lambda path: _part(folder, path), changed).items():
            self._parts[node.id, path] = states[path], lines
        parts = {of: tags for path in paths for of, tags in self._part(node, path)[1].items()}
        return NodeCurves(own.attempt, {**parts, **own.lines})

    def _part(self, node: NodeContents, path: str) -> tuple[str | None, live.Lines]:
        return self._parts.get((node.id, path), (None, {}))


def _signs(node: NodeContents, done: bool) -> Signs:
    return done, node.signs.get(CURVES), node.signs.get("record.json")


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
