"""Every number we export: one list of names with unit and help, one exporter, and where the numbers go.

Knows nothing of what they measure. Names here are without the prefix `vitpipe_`; base units; labels only run, node,
rank and benchmark.
"""

import difflib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vitpipe.infra.errors import StorageError, VitpipeError
from vitpipe.infra.storage import traffic

PREFIX = "vitpipe_"
LABELS = ("run", "node", "rank", "benchmark")
STATES = ("waiting", "running", "committed", "failed", "blocked")
"""Values of `stage_state`: the position in this list."""
PORT = 9464
_AGE = "last_commit_age_seconds"


@dataclass(frozen=True)
class Known:
    """One metric. Counters only grow and end in `_total`; a gauge is the newest value."""

    name: str
    help: str
    kind: Literal["gauge", "counter"] = "gauge"


KNOWN: dict[str, Known] = {
    known.name: known
    for known in (
        Known("step", "Last finished step (optimiser steps in training, tasks elsewhere)."),
        Known("target_steps", "Steps the node will take in all."),
        Known("samples_seen", "Images consumed since the beginning of the recipe."),
        Known("loss", "Training loss of the last step, mean over the global batch."),
        Known("learning_rate", "Learning rate of the last step."),
        Known("gradient_norm", "Global L2 norm of the gradient before clipping, last step."),
        Known("images_per_second", "Images consumed per second, over all ranks."),
        Known("model_flops_utilization_ratio", "Model FLOPs per second over the devices' peak, 0 to 1."),
        Known("data_wait_seconds_total", "Seconds training has waited for its next batch.", "counter"),
        Known("data_wait_ratio", "Share of step time spent waiting for data, 0 to 1, since the last report."),
        Known("goodput_ratio", "Productive over total time of all attempts, 0 to 1."),
        Known("productive_seconds_total", "Seconds of steps that updated weights, less waits for data.", "counter"),
        Known("startup_seconds_total", "Seconds from the driver's or the gang's start to the first step.", "counter"),
        Known("checkpoint_stall_seconds_total", "Seconds training stood still for checkpoints.", "counter"),
        Known("evaluation_seconds_total", "Seconds training stood still to be measured.", "counter"),
        Known("restart_lost_seconds_total", "Seconds from a checkpoint to the restart from it.", "counter"),
        Known("rank_forward_seconds", "Seconds of a rank's own forward passes in a step."),
        Known("rank_data_wait_seconds", "Seconds a rank waited for its data in a step."),
        Known("validation_loss", "Loss on held-out images, measured while training."),
        Known("validation_accuracy", "Accuracy on held-out images, a fraction, measured while training."),
        Known("fewshot_accuracy", "Few-shot accuracy of frozen features, a fraction, measured while training."),
        Known("shard_wait_seconds_total", "Seconds readers have waited for shards from the store.", "counter"),
        Known("uncached_samples_total", "Images read from the store one by one: no room on the disk.", "counter"),
        Known("step_seconds", "Wall time of the last step."),
        Known("checkpoint_stall_seconds", "Seconds training stood still for the last checkpoint."),
        Known("checkpoint_commit_seconds", "Seconds from the last checkpoint's begin to its commit in the store."),
        Known("last_committed_step", "Step of the newest committed checkpoint."),
        Known("last_commit_timestamp_seconds", "Unix time of the newest commit."),
        Known("last_commit_age_seconds", "Seconds since the newest commit; computed when scraped."),
        Known("storage_read_bytes_total", "Bytes read from the store.", "counter"),
        Known("storage_written_bytes_total", "Bytes written to the store.", "counter"),
        Known("storage_retries_total", "Store requests that were tried again.", "counter"),
        Known("quarantined_samples_total", "Samples skipped and recorded with a reason.", "counter"),
        Known("skipped_steps_total", "Steps without an update because of a non-finite gradient.", "counter"),
        Known("loss_spikes_total", "Steps whose loss was far above that of the steps before.", "counter"),
        Known("restarts_total", "Restarts of the node's gang, or of its tasks, after a loss.", "counter"),
        Known("preemptions_total", "Restarts because a machine was reclaimed, not charged to the budget.", "counter"),
        Known("ranks", "Ranks that train in lockstep now."),
        Known("peak_memory_bytes", "Peak memory of a rank: of its GPU, or of its process without one."),
        Known("eta_seconds", "Estimated seconds to the end of the node."),
        Known("feature_images_total", "Images that passed through a frozen model for their features.", "counter"),
        Known("feature_images_reused_total", "Images whose features another node or attempt had left.", "counter"),
        Known("stage_state", f"State of the node: {', '.join(f'{i} {name}' for i, name in enumerate(STATES))}."),
        Known("score", "Result on a benchmark, a fraction for accuracies."),
    )
}


class Sink(Protocol):
    """Where numbers go; `name` is known and `labels` are complete."""

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None: ...

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None: ...


class Nowhere:
    """Drops everything: tests, and processes that nobody scrapes."""

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        return None

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        return None


_sink: Sink = Nowhere()


def use(sink: Sink) -> Sink:
    """Send this process's numbers to `sink` from now on; the one before."""
    global _sink
    before, _sink = _sink, sink
    return before


def check(name: str, labels: Mapping[str, str]) -> None:
    """Raise VitpipeError, naming the nearest, for a name or label that no list knows."""
    for what, value, known in (("metric", name, tuple(KNOWN)), *(("label", label, LABELS) for label in labels)):
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0.0)
            raise VitpipeError(
                f"export {what} {value!r}", "no such name in vitpipe.infra.metrics", f"did you mean {near[0]!r}?"
            )


@dataclass(frozen=True)
class NodeMetrics:
    """Satisfies `stages.contract.Metrics`: run and node are on every number. Picklable."""

    run: str
    node: str

    def set(self, name: str, value: float, **labels: str) -> None:
        check(name, labels)
        _sink.set(name, value, {"run": self.run, "node": self.node, **labels})

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        check(name, labels)
        _sink.inc(name, amount, {"run": self.run, "node": self.node, **labels})


def node_metrics(run: str, node: str) -> NodeMetrics:
    return NodeMetrics(run, node)


_storage = NodeMetrics("", "")


def count_storage(run: str, node: str) -> None:
    """Count what storage moves and retries in this process for that node from now on (no node: for the driver)."""
    global _storage
    _storage = node_metrics(run, node)
    traffic.listen(_count_storage)


def _count_storage(kind: traffic.Kind, amount: float) -> None:
    _storage.inc(f"storage_{kind}_total", amount)


def publish(run: str, node: str, metrics: Mapping[str, float], **labels: str) -> None:
    """Take over absolute values (counters too) that another process measured."""
    for name, value in metrics.items():
        check(name, labels)
        _sink.set(name, value, {"run": run, "node": node, **labels})


def publish_progress(run: str, node: str, progress: Mapping[str, Any]) -> None:
    """Take over what a node's progress file says: its own `metrics`, and the fields every node has."""
    named = {"step": "step", "total": "target_steps", "loss": "loss", "eta_seconds": "eta_seconds"}
    named["images_per_second"] = "images_per_second"
    values = {metric: progress[field] for field, metric in named.items() if progress.get(field) is not None}
    if progress.get("ranks"):
        values["ranks"] = len(progress["ranks"])
    values |= progress.get("metrics", {})
    if (committed := values.get("last_commit_timestamp_seconds")) is not None and "time" in progress:
        values[_AGE] = max(0.0, progress["time"] - committed)  # both by the clock of that rank
    publish(run, node, values)
    for rank in progress.get("ranks") or ():
        own = {f"rank_{name}": rank[name] for name in ("forward_seconds", "data_wait_seconds") if name in rank}
        publish(run, node, own, rank=str(rank["rank"]))


class Exporter:
    """Serves the newest values at `http://127.0.0.1:{port}/metrics` until closed. A Sink; thread-safe."""

    def __init__(self, port: int = PORT, host: str = "127.0.0.1") -> None:
        """Take `port`, or any free one when another run has it. StorageError when none can be bound."""
        self._values: dict[str, dict[tuple[str, ...], float]] = {}
        self._lock = threading.Lock()
        self._server, self._thread = self._serve(port, host)
        self.url = f"http://{host}:{self._server.server_port}/metrics"
        self._before = use(self)

    def _serve(self, port: int, host: str) -> tuple[Any, threading.Thread]:
        registry = CollectorRegistry()
        registry.register(self)
        try:
            return start_http_server(port, host, registry)
        except OSError as error:
            if port == 0:
                raise StorageError(f"serve metrics on {host}", str(error), "free a port") from error
            return self._serve(0, host)

    def close(self) -> None:
        use(self._before)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        since = time.monotonic() if name == _AGE else 0.0  # it grows by our clock until the next is heard
        with self._lock:
            self._values.setdefault(name, {})[_key(labels)] = float(value) - since

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            series = self._values.setdefault(name, {})
            series[_key(labels)] = series.get(_key(labels), 0.0) + amount

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client at each scrape."""
        with self._lock:
            values = {name: dict(series) for name, series in self._values.items()}
        if ages := values.get(_AGE):
            values[_AGE] = {key: time.monotonic() + age for key, age in ages.items()}
        for name, series in values.items():
            known = KNOWN[name]
            family = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
            metric = family(PREFIX + name, known.help, labels=LABELS)
            for key, value in series.items():
                metric.add_metric(list(key), value)
            yield metric

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: what there is depends on the run."""
        return iter(())


def _key(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(str(labels.get(label, "")) for label in LABELS)
