"""The Prometheus endpoint of a driver: the newest value of every number, served until closed. Knows no run."""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vitpipe.infra.errors import StorageError
from vitpipe.infra.metrics import AGE, KNOWN, LABELS, PREFIX, use

PORT = 9464


class Exporter:
    """Satisfies `infra.metrics.Sink`: serves the newest values at `http://127.0.0.1:{port}/metrics`; thread-safe."""

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
        """Stop serving; numbers go where they went before."""
        use(self._before)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        since = time.monotonic() if name == AGE else 0.0  # it grows by our clock until the next is heard
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
        if ages := values.get(AGE):
            values[AGE] = {key: time.monotonic() + age for key, age in ages.items()}
        for name, series in values.items():
            known = KNOWN[name]
            family = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
            metric = family(PREFIX + name, known.help, labels=LABELS)
            for key, value in series.items():
                metric.add_metric(list(key), value)
            yield metric

    def describe(self) -> Iterator[Metric]:
        """Name no metric in advance: which ones there are depends on the run."""
        return iter(())


def _key(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(str(labels.get(label, "")) for label in LABELS)
