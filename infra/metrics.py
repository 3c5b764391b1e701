"""Every number we export: one list of names with unit and help, and where the numbers go.

Knows nothing of what they measure. Names here are without the prefix `vitpipe_`; base units; labels only run, node,
rank and benchmark.
"""

import difflib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.storage import traffic

PREFIX = "vitpipe_"
LABELS = ("run", "node", "rank", "benchmark")
STATES = ("waiting", "running", "committed", "failed", "blocked")
"""Values of `stage_state`: the position in this list."""
AGE = "last_commit_age_seconds"
WHILE_RUNNING = {
    "last_commit_age_seconds",
    "images_per_second",
    "model_flops_utilization_ratio",
    "data_wait_ratio",
    "step_seconds",
    "eta_seconds",
    "ranks",
    "rank_forward_seconds",
    "rank_data_wait_seconds",
    "peak_memory_bytes",
}
"""Gauges that say nothing of a node that does not run."""


@dataclass(frozen=True)
class Metric:
    """One metric. Counters only grow and end in `_total`; a gauge is the newest value."""

    name: str
    help: str
    kind: Literal["gauge", "counter"] = "gauge"


KNOWN: dict[str, Metric] = {
    known.name: known
    for known in (
        Metric("driver_fence", "Fencing number of the driver that runs here."),
        Metric("driver_ended_fence", "The same once that driver has ended, or was asked to, and says so; 0 before."),
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
        Metric("queue_wait_seconds_total", "Seconds training waited until the machines were its own.", "counter"),
        Metric("startup_seconds_total", "Seconds from then, or the gang's restart, to the first step.", "counter"),
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
        Metric("last_commit_age_seconds", "Seconds since training began or was last committed; computed when scraped."),
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
        """Let a counter grow by `amount`; by 0 to have it there before it grows. VitpipeError as above."""
        check(name, labels)
        _sink.inc(name, amount, {"run": self.run, "node": self.node, **labels})


Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name with its labels."""


@dataclass
class Numbers:
    """Numbers on their way: the newest value of each gauge, and what each counter has grown by."""

    gauges: dict[Series, float] = field(default_factory=dict)
    growth: dict[Series, float] = field(default_factory=dict)

    def merge(self, later: "Numbers") -> None:
        """Take a later one in."""
        self.gauges |= later.gauges
        for series, amount in later.growth.items():
            self.growth[series] = self.growth.get(series, 0.0) + amount

    def pass_on(self) -> None:
        """Give everything to this process's sink."""
        for (name, labels), value in self.gauges.items():
            _sink.set(name, value, dict(labels))
        for (name, labels), amount in self.growth.items():
            _sink.inc(name, amount, dict(labels))


class Pending:
    """Satisfies `Sink`: holds numbers until they are taken. Thread-safe."""

    def __init__(self) -> None:
        self._batch, self._lock = Numbers(), threading.Lock()

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._batch.gauges[name, tuple(labels.items())] = value

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._batch.merge(Numbers(growth={(name, tuple(labels.items())): amount}))

    def take(self) -> Numbers:
        """Return what came since the last time."""
        with self._lock:
            batch, self._batch = self._batch, Numbers()
        return batch


_storage = NodeMetrics("", "")


def count_storage(run: str, node: str) -> None:
    """From now on count this process's storage traffic and retries for that node (an empty name: for the driver)."""
    global _storage
    _storage = NodeMetrics(run, node)
    traffic.listen(_count_storage)
    for kind in get_args(traffic.Kind):
        _count_storage(kind, 0.0)


def _count_storage(kind: traffic.Kind, amount: float) -> None:
    _storage.inc(f"storage_{kind}_total", amount)


def publish_progress(run: str, node: str, progress: Mapping[str, Any]) -> None:
    """Publish the fields of a node's progress file."""
    door = NodeMetrics(run, node)
    named = {"step": "step", "total": "target_steps", "loss": "loss", "eta_seconds": "eta_seconds"}
    named["images_per_second"] = "images_per_second"
    for name, metric in named.items():
        if progress.get(name) is not None:
            door.set(metric, progress[name])
    if progress.get("ranks"):
        door.set("ranks", len(progress["ranks"]))
