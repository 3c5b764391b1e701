"""A run as facts for a person's own code: its scores, nodes, curves, recipe and page. Reads the store alone."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.library.table import table
from vitpipe.pipeline.store.accepted_spec import accepted_spec
from vitpipe.pipeline.store.retrieval import committed_artifacts
from vitpipe.pipeline.store.runs import Run, known_run
from vitpipe.pipeline.store.status import read_status
from vitpipe.stages.artifacts import Artifact, Checkpoint, Report, Score

_CURVES, _PAGE = "metrics.jsonl", "index.html"


def read_run(run: str | os.PathLike[str]) -> "RunView":
    """Look at a run: `runs/x`, `file://...`, `s3://...`, or the path of its YAML. UsageError when there is none."""
    return RunView(known_run(os.fspath(run), "read the run"))


@dataclass(frozen=True, repr=False)
class RunView:
    """What a run has committed so far. Each property looks anew, so it shows a run that goes on.

    Errors: IntegrityError for a damaged record; StorageError.
    """

    run: Run

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.run.uri

    @property
    def nodes(self) -> Any:
        """A row a node: node, state (`committed`, `running`, `waiting`, `failed`, `blocked`), why, and its artifact."""
        kinds = {id: artifact.kind for id, artifact in self._artifacts().items()}
        status = read_status(self.run.store).nodes
        return table(
            {"node": one.node, "state": one.state, "why": one.why, "artifact": kinds.get(one.node)} for one in status
        )

    @property
    def scores(self) -> Any:
        """A row a Score: node, benchmark, metric, value (a fraction for accuracies), its sample standard deviation over
        seeds, the seeds' values, test images, and what the dev split chose."""
        return table(
            {
                "node": node,
                "benchmark": score.benchmark,
                "metric": score.metric,
                "value": score.value,
                "std": score.std,
                "per_seed": score.per_seed,
                "num_test": score.num_test,
                **{f"chosen_{name}": value for name, value in score.chosen.items()},
                **{name: score.protocol.get(name) for name in ("method", "weights")},
            }
            for node, score in self._artifacts().items()
            if isinstance(score, Score)
        )

    @property
    def config(self) -> dict[str, Any]:
        """The recipe as it was accepted: the YAML with everything filled in that it refers to."""
        return dict(accepted_spec(self.run.store, "read the recipe of").document)

    @property
    def page(self) -> Path | None:
        """The report's page on this machine, or None: none is committed, or it lies in a bucket (`vitpipe report`)."""
        for artifact in self._artifacts().values():
            if isinstance(artifact, Report) and artifact.has(_PAGE) and artifact.uri.startswith("file://"):
                return Path(artifact.uri.removeprefix("file://")) / artifact.file(_PAGE).at
        return None

    def metrics(self, node: str) -> Any:
        """Read the curve of a pretraining, a row a step: step, samples_seen, loss, lr, grad_norm, seconds, ...

        UsageError for a node that is not committed, stands for siblings or keeps no curve.
        """
        found = dict(committed_artifacts(self.uri, "read the metrics of", node))
        if len(found) > 1:
            many = f"it stands for {len(found)} siblings"
            raise UsageError(f"read the metrics of {node}", many, f"name one of them: {', '.join(found)}")
        artifact = found.popitem()[1].artifact()
        if not artifact.has(_CURVES):
            with_one = [id for id, other in self._artifacts().items() if isinstance(other, Checkpoint)]
            do = f"curves are kept by {', '.join(with_one)}" if with_one else "a pretraining keeps one"
            raise UsageError(f"read the metrics of {node}", f"it is a {artifact.kind} without a curve", do)
        return table(json.loads(line) for line in artifact.read(_CURVES).splitlines())

    def __repr__(self) -> str:
        """Where the run lies, and what it scored."""
        return f"{self.uri}\n{self.scores}"

    def _artifacts(self) -> dict[str, Artifact]:
        return {id: found.artifact() for id, found in committed_artifacts(self.uri, "read the run", None)}
