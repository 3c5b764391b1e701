"""A real Prometheus with the shipped configuration, its time compressed: what lasts a minute there lasts a second here.

Windows, `for:` and thresholds in seconds of the rules are divided, and nothing else of them is changed.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vitpipe.infra import metrics

DEPLOY = Path(metrics.__file__).resolve().parent / "deploy"
_SHORT = {"s": 1 / 60, "m": 1, "h": 300}
"""Seconds here of the units there."""


def compressed(text: str) -> str:
    """The same rules or query, where time passes sixty times as fast.

    A scrape is a second here, 15 times as fast: what is to last lasts five of them, as a busy machine loses some. And
    an hour is five minutes, in which ranks can be lost and restarted twice.
    """
    text = re.sub(r"(age_seconds\S* > )(\d+)", lambda found: f"{found[1]}{int(found[2]) // 60}", text)
    return re.sub(
        r"(?<=[\[ ])(\d+)([smh])(?=[\])\s])",
        lambda found: f"{max(5, round(int(found[1]) * _SHORT[found[2]]))}s",
        text,
    )


def queries() -> dict[str, str]:
    """Each panel of the board by title, with the PromQL that it asks of all runs and nodes."""
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return {
        f"{panel['title']} ({target['refId']})": re.sub(r"\$(run|node)\b", ".*", target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }


def rules() -> dict[str, str]:
    """Each rule by the name of its alert or record, with the PromQL that it asks."""
    (group,) = YAML(typ="safe").load(DEPLOY / "prometheus-rules.yaml")["groups"]
    return {str(rule.get("alert") or rule["record"]): str(rule["expr"]) for rule in group["rules"]}


@dataclass(frozen=True)
class Prometheus:
    """One that runs, and scrapes every run whose TMPDIR is `folder`."""

    url: str
    folder: Path
    began: float

    def ask(self, path: str, **query: Any) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            return json.load(answer)["data"]

    def fired(self) -> set[tuple[str, str, str]]:
        """Every alert that has fired since the beginning: its name, run and node."""
        now = time.time()
        window = f"[{int(now - self.began) + 1}s]"
        found = self.ask("query", query=f'count_over_time(ALERTS{{alertstate="firing"}}{window})')["result"]
        labels = [one["metric"] for one in found]
        return {(one["alertname"], one["run"], one.get("node", "")) for one in labels}

    def has_had(self, query: str) -> bool:
        """Whether a query has found anything at any second until now."""
        found = self.ask("query_range", query=compressed(query), start=self.began, end=time.time(), step=1)
        return bool(found["result"])

    def targets(self) -> set[str]:
        """The addresses of runs that it knows of now."""
        found = self.ask("targets", state="active")["activeTargets"]
        return {one["labels"]["instance"] for one in found if one["labels"]["job"] == "vitpipe"}


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Start one; its data lie below `folder`, where `vitpipe-metrics` is watched."""
    if not shutil.which("prometheus"):
        if os.environ.get("VITPIPE_REQUIRE_SERVICES"):
            pytest.fail("Prometheus is not installed (Debian: prometheus)")
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    (folder / "vitpipe-metrics").mkdir(mode=0o1777)
    (folder / "prometheus-rules.yaml").write_text(compressed((DEPLOY / "prometheus-rules.yaml").read_text()))
    settings = (DEPLOY / "prometheus.yaml").read_text().replace("/tmp/", f"{folder}/")
    (folder / "prometheus.yaml").write_text(settings.replace("15s", "1s"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        yield _once_it_answers(Prometheus(f"http://127.0.0.1:{port}", folder, time.time()))
    finally:
        process.kill()
        process.wait(30)


def _once_it_answers(server: Prometheus) -> Prometheus:
    for _ in range(300):
        try:
            server.ask("query", query="vector(1)")
        except OSError:
            time.sleep(0.1)
        else:
            return server
    raise AssertionError((server.folder / "prometheus.log").read_text())
