"""Every number we export: one list of names with unit and help, and where the numbers go.

Knows nothing of what they measure. Names here are without the prefix `vitpipe_`; base units; labels only run, node,
rank and benchmark.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.storage import traffic

PREFIX = "vitpipe_"
LABELS = ("run", "node", "rank", "benchmark")
STATES = ("waiting", "running", "committed", "failed", "blocked")
"""Values of `stage_state`: the position in this list."""
AGE = "last_commit_age_seconds"


@dataclass(frozen=True)
class Metric:
    """One metric. Counters only grow and end in `_total`; a gauge is the newest value."""

    name: str
    help: str
    kind: Literal["gauge", "counter"] = "gauge"


KNOWN: dict[str, Metric] = {
    known.name: known
    for known in (
        Metric("step", "Last finished step (optimiser steps in training, tasks elsewhere)."),
        Metric("target_steps", "Steps the node will take in all."),
        Metric("samples_seen", "Images consumed since the beginning of the recipe."),
        Metric("loss", "Training loss of the last step, mean over the global batch."),
        Metric("learning_rate", "Learning rate of the last step."),
        Metric("gradient_norm", "Global L2 norm of the gradient before clipping, last step."),
        Metric("images_per_second", "Images consumed per second, over all ranks."),
        Metric("model_flops_utilization_ratio", "Model FLOPs per second over the devices' peak, 0 to 1."),
        Metric("data_wait_seconds_total", "Seconds training has waited for its next batch.", "counter"),
        Metric("data_wait_ratio", "Share of step time spent waiting for data, 0 to 1, since the last report."),
        Metric("goodput_ratio", "Productive over total time of all attempts, 0 to 1."),
        Metric("productive_seconds_total", "Seconds of steps that updated weights, less waits for data.", "counter"),
        Metric("startup_seconds_total", "Seconds from the driver's or the gang's start to the first step.", "counter"),
        Metric("checkpoint_stall_seconds_total", "Seconds training stood still for checkpoints.", "counter"),
        Metric("evaluation_seconds_total", "Seconds training stood still to be measured.", "counter"),
        Metric("restart_lost_seconds_total", "Seconds from a checkpoint to the restart from it.", "counter"),
        Metric("rank_forward_seconds", "Seconds of a rank's own forward passes in a step."),
        Metric("rank_data_wait_seconds", "Seconds a rank waited for its data in a step."),
        Metric("validation_loss", "Loss on held-out images, measured while training."),
        Metric("validation_accuracy", "Accuracy on held-out images, a fraction, measured while training."),
        Metric("watched_accuracy", "Accuracy on a watched data set, a fraction, measured while training."),
        Metric("fewshot_accuracy", "Few-shot accuracy of frozen features, a fraction, measured while training."),
        Metric("shard_wait_seconds_total", "Seconds readers have waited for shards from the store.", "counter"),
        Metric("uncached_samples_total", "Images read from the store one by one: no room on the disk.", "counter"),
        Metric("step_seconds", "Wall time of the last step."),
        Metric("checkpoint_stall_seconds", "Seconds training stood still for the last checkpoint."),
        Metric("checkpoint_commit_seconds", "Seconds from the last checkpoint's begin to its commit in the store."),
        Metric("last_committed_step", "Step of the newest committed checkpoint."),
        Metric("last_commit_timestamp_seconds", "Unix time of the newest commit."),
        Metric("last_commit_age_seconds", "Seconds since the newest commit; computed when scraped."),
        Metric("storage_read_bytes_total", "Bytes read from the store.", "counter"),
        Metric("storage_written_bytes_total", "Bytes written to the store.", "counter"),
        Metric("storage_retries_total", "Store requests that were tried again.", "counter"),
        Metric("quarantined_samples_total", "Samples skipped and recorded with a reason.", "counter"),
        Metric("skipped_steps_total", "Steps without an update because of a non-finite gradient.", "counter"),
        Metric("loss_spikes_total", "Steps whose loss was far above that of the steps before.", "counter"),
        Metric("restarts_total", "Restarts of the node's gang, or of its tasks, after a loss.", "counter"),
        Metric("preemptions_total", "Restarts because a machine was reclaimed, not charged to the budget.", "counter"),
        Metric("ranks", "Ranks that train in lockstep now."),
        Metric("peak_memory_bytes", "Peak memory of a rank: of its GPU, or of its process without one."),
        Metric("eta_seconds", "Estimated seconds to the end of the node."),
        Metric("feature_images_total", "Images that passed through a frozen model for their features.", "counter"),
        Metric("feature_images_reused_total", "Images whose features another node or attempt had left.", "counter"),
        Metric("stage_state", f"State of the node: {', '.join(f'{i} {name}' for i, name in enumerate(STATES))}."),
        Metric("score", "Result on a benchmark, a fraction for accuracies."),
    )
}


class Sink(Protocol):
    """Where numbers go; `name` is known and `labels` are complete."""

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Take a gauge's newest value."""

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Let a counter grow by `amount`."""


class Nowhere:
    """Satisfies `Sink` and drops everything: for tests, and processes that nobody scrapes."""

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        return None

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        return None


_sink: Sink = Nowhere()


def use(sink: Sink) -> Sink:
    """Send this process's numbers to `sink` from now on; return the sink before."""
    global _sink
    before, _sink = _sink, sink
    return before


def check(name: str, labels: Mapping[str, str]) -> None:
    """Raise VitpipeError, naming the nearest, for a name or label that no list knows."""
    for what, value, known in (("metric", name, tuple(KNOWN)), *(("label", label, LABELS) for label in labels)):
        if value not in known:
            do = f"did you mean {difflib.get_close_matches(value, known, n=1, cutoff=0.0)[0]!r}?"
            raise VitpipeError(f"export {what} {value!r}", "no such name in infra/metrics.py", do)


@dataclass(frozen=True)
class NodeMetrics:
    """Satisfies `stages.contract.Metrics`: run and node are on every number. Picklable."""

    run: str
    node: str

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge. VitpipeError for an unknown name or label."""
        check(name, labels)
        _sink.set(name, value, {"run": self.run, "node": self.node, **labels})

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Let a counter grow by `amount`. VitpipeError for an unknown name or label."""
        check(name, labels)
        _sink.inc(name, amount, {"run": self.run, "node": self.node, **labels})


_storage = NodeMetrics("", "")


def count_storage(run: str, node: str) -> None:
    """From now on count this process's storage traffic and retries for that node (an empty name: for the driver)."""
    global _storage
    _storage = NodeMetrics(run, node)
    traffic.listen(_count_storage)


def _count_storage(kind: traffic.Kind, amount: float) -> None:
    _storage.inc(f"storage_{kind}_total", amount)


def publish(run: str, node: str, metrics: Mapping[str, float], **labels: str) -> None:
    """Publish absolute values (counters too) that another process measured."""
    for name, value in metrics.items():
        check(name, labels)
        _sink.set(name, value, {"run": run, "node": node, **labels})


def publish_progress(run: str, node: str, progress: Mapping[str, Any]) -> None:
    """Publish what a node's progress file says: its own `metrics`, and the fields that every node has."""
    named = {"step": "step", "total": "target_steps", "loss": "loss", "eta_seconds": "eta_seconds"}
    named["images_per_second"] = "images_per_second"
    values = {metric: progress[field] for field, metric in named.items() if progress.get(field) is not None}
    if progress.get("ranks"):
        values["ranks"] = len(progress["ranks"])
    values |= progress.get("metrics", {})
    if (committed := values.get("last_commit_timestamp_seconds")) is not None and "time" in progress:
        values[AGE] = max(0.0, progress["time"] - committed)  # both by the clock of that rank
    publish(run, node, values)
    for rank in progress.get("ranks") or ():
        own = {f"rank_{name}": rank[name] for name in ("forward_seconds", "data_wait_seconds") if name in rank}
        publish(run, node, own, rank=str(rank["rank"]))
