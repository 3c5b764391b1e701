"""The Prometheus endpoint of a driver: the newest value of every number, served until closed. Knows no run.

A file in a folder that Prometheus watches names its address, so that all runs of a machine are scraped.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.infra.metrics import AGE, KNOWN, LABELS, PREFIX, STATES, WHILE_RUNNING, use

SETTING = "VITPIPE_METRICS"
"""`host:port`, or `off`."""
PORTS = 16
"""Ports that are tried, from the one asked for on."""
SCRAPER = "HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS"
"""A header that Prometheus, and what speaks like it, sends with every scrape."""
KNOWN_S = 150.0
"""Who has not scraped for so long is no longer waited for."""
FAREWELL_S = 60.0
ARRIVAL_S = 1.0
"""Until an answer that was asked for has arrived, and is written down there."""


class Address(NamedTuple):
    """Where to serve: a host of this machine, and the first port to try (0: any free one)."""

    host: str = "127.0.0.1"
    port: int = 9464


def asked_address() -> Address | None:
    """Return what `VITPIPE_METRICS` says, by default `127.0.0.1:9464`; None for `off`. UsageError."""
    asked = os.environ.get(SETTING, "")
    if asked == "off":
        return None
    host, _, port = asked.rpartition(":")
    if asked and not (host and port.isdecimal() and int(port) < 65536):
        raise UsageError("serve metrics", f"{SETTING} is {asked!r}", "set it to host:port, or to off")
    return Address(host.strip("[]"), int(port)) if asked else Address()


def targets_folder() -> Path:
    """Name the folder whose `*.json` say to Prometheus what to scrape: shared by all users of this machine."""
    return Path(tempfile.gettempdir()) / "vitpipe-metrics"


class Exporter:
    """Satisfies `infra.metrics.Sink`: serves the newest values at `http://{host}:{port}/metrics`; thread-safe."""

    def __init__(self, address: Address) -> None:
        """Take the port, or one of the next 15 when others have it. StorageError when none can be bound."""
        self._values: dict[str, dict[tuple[str, ...], float]] = {}
        self._lock = threading.Lock()
        self._scraped: dict[str, float] = {}
        self._resting: set[tuple[str, ...]] = set()
        self._server, self._thread = self._serve(address)
        self._server.set_app(self._noting(self._server.get_app()))
        port = self._server.server_port
        self.url = f"http://{_bracketed(address.host)}:{port}/metrics"
        self._target = _announce(address.host, port)
        self._before = use(self)

    def _serve(self, address: Address) -> tuple[Any, threading.Thread]:
        registry = CollectorRegistry()
        registry.register(self)
        refusal = OSError("no port")
        for port in range(address.port, min(address.port + PORTS, 65536)) if address.port else (0,):
            try:
                return start_http_server(port, address.host, registry)
            except OSError as error:
                refusal = error
        asked = f"serve metrics on {address.host}, port {address.port} or one of the next"
        raise StorageError(asked, str(refusal), f"set {SETTING} to another address") from refusal

    def _noting(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        def noted(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            began = time.monotonic()
            answer = app(environ, start)
            if SCRAPER in environ:
                with self._lock:
                    self._scraped[f"{environ['REMOTE_ADDR']} {environ.get('HTTP_USER_AGENT')}"] = began
            return answer

        return noted

    def say_farewell(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Wait until everyone who scrapes us has done so once more, a minute at most, less when we are hurried."""
        now = time.monotonic()
        with self._lock:
            waited_for = {who for who, when in self._scraped.items() if when > now - KNOWN_S}
        while time.monotonic() < now + FAREWELL_S and not hurried():
            with self._lock:
                heard = all(self._scraped[who] > now for who in waited_for)
            if heard:
                time.sleep(ARRIVAL_S if waited_for else 0.0)
                return
            time.sleep(0.1)

    def close(self) -> None:
        """Stop serving; numbers go where they went before."""
        use(self._before)
        self._target.unlink(missing_ok=True)
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
            if name == "stage_state":
                self._turn(_key(labels)[:2], STATES[int(value)] == "running")
            if name == "ranks":
                self._forget_ranks(_key(labels)[:2], int(value))
            if name not in WHILE_RUNNING or _key(labels)[:2] not in self._resting:
                self._values.setdefault(name, {})[_key(labels)] = float(value) - since

    def _turn(self, node: tuple[str, ...], runs: bool) -> None:
        """Forget what is true of a running node alone, and what still comes of it, until it runs again."""
        if runs:
            self._resting.discard(node)
            return
        self._resting.add(node)
        for name in WHILE_RUNNING & self._values.keys():
            self._values[name] = {key: value for key, value in self._values[name].items() if key[:2] != node}

    def _forget_ranks(self, node: tuple[str, ...], left: int) -> None:
        """Forget the ranks that a gang had before it shrank."""
        for name, series in self._values.items():
            gone = [key for key in series if key[:2] == node and key[2].isdecimal() and int(key[2]) >= left]
            self._values[name] = {key: value for key, value in series.items() if key not in gone}

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


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _announce(host: str, port: int) -> Path:
    """Write the file that names this address, and remove those of this user that nobody answers at any more."""
    folder = targets_folder()
    mine = folder / f"{os.getuid()}-{port}.json"
    near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    with contextlib.suppress(OSError):  # without the file it is scraped by its address all the same
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)
    with contextlib.suppress(OSError):
        for left in folder.glob(f"{os.getuid()}-*.json"):
            if not _answers(left):
                left.unlink(missing_ok=True)
        fresh = folder / f".{mine.name}"
        fresh.write_text(json.dumps([{"targets": [f"{_bracketed(near)}:{port}"]}]))
        fresh.chmod(0o644)
        fresh.replace(mine)
    return mine


def _answers(target: Path) -> bool:
    try:
        host, _, port = json.loads(target.read_text())[0]["targets"][0].rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError, LookupError, TypeError):
        return False
