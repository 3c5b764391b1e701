"""Curves to MLflow: a server, or a database file, as MLFLOW_TRACKING_URI says. It is asked for what it has."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitpipe.pipeline.cli.track.follow import Open, Row, TrackedNode, library, newest, plain

MOST_AT_ONCE = 1000
"""Values of one request, by MLflow's own limit; of parameters it takes a hundred."""
MOST_PARAMS = 100
MOST_LETTERS = 6000
"""Of a parameter's value, by the same."""


def opener(project: str, place: str | None) -> Open:
    """Open nodes in the experiment `project`, on the server or database `place`. UsageError without the library."""
    mlflow = library("mlflow", "mlflow")
    client = mlflow.tracking.MlflowClient(tracking_uri=place)
    return lambda node: _open(mlflow, client, project, node)


@dataclass
class _InMlflow:
    mlflow: Any
    client: Any
    run_id: str
    last: dict[str, int] = field(default_factory=dict)

    def send(self, rows: list[Row]) -> None:
        metrics = [
            self.mlflow.entities.Metric(plain(tag), value, int(1000 * row.clock), row.step)
            for row in rows
            for tag, value in row.values.items()
        ]
        for start in range(0, len(metrics), MOST_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + MOST_AT_ONCE])
        newest(self.last, rows)

    def close(self, state: str, results: Mapping[str, float]) -> None:
        known = self.client.get_run(self.run_id).data.metrics
        for name, value in results.items():
            if name not in known:
                self.client.log_metric(self.run_id, name, value)
        if state == "committed":
            self.client.set_terminated(self.run_id)


def _open(mlflow: Any, client: Any, project: str, node: TrackedNode) -> _InMlflow:
    experiment = client.get_experiment_by_name(project)
    id = experiment.experiment_id if experiment else client.create_experiment(project)
    found = client.search_runs([id], f"tags.vitpipe_id = '{node.id}'", max_results=1)
    if not found:
        tags = {**node.about, "vitpipe_id": node.id, "vitpipe_name": node.run}
        made = client.create_run(id, int(1000 * time.time()), tags, f"{node.run}/{node.node}")
        given = [mlflow.entities.Param(plain(k), str(v)[:MOST_LETTERS]) for k, v in node.params.items()]
        for start in range(0, len(given), MOST_PARAMS):
            client.log_batch(made.info.run_id, params=given[start : start + MOST_PARAMS])
        return _InMlflow(mlflow, client, made.info.run_id)
    run = found[0]
    there = _InMlflow(mlflow, client, run.info.run_id)
    for tag in run.data.metrics:
        there.last[tag] = max(one.step for one in client.get_metric_history(run.info.run_id, tag))
    return there
