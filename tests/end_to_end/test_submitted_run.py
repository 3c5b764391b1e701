"""A cluster of its own (`ray start --head` with a token): submitted, watched from another process, fetched."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from driving import ENV, PATIENCE_S, vitpipe, write_spec
from prometheus_server import DEPLOY, prometheus

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def gcs() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings of docs/operations.md for the head's Metrics tab: a real Prometheus, and what answers as Grafana."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Grafana)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    folder = tmp_path_factory.mktemp("watching")
    (folder / "boards").mkdir()
    shutil.copy(DEPLOY / "grafana-dashboard.json", folder / "boards")
    with prometheus(folder) as scraper:
        yield {
            "RAY_PROMETHEUS_HOST": scraper.url,
            "RAY_GRAFANA_HOST": f"http://127.0.0.1:{server.server_port}",
            "RAY_GRAFANA_IFRAME_HOST": "http://grafana.lan:3000",
            "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR": str(folder / "boards"),
        }
    server.shutdown()
    server.server_close()
    thread.join()


class _Grafana(BaseHTTPRequestHandler):
    """Debian has no Grafana; what Ray asks it is whether it is well."""

    def do_GET(self) -> None:
        body = b'{"database": "ok"}' if self.path == "/api/health" else b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def head(
    tmp_path_factory: pytest.TempPathFactory, gcs: str, watching: dict[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node with token authentication; its dashboard's address and the environment that may use it."""
    folder = tmp_path_factory.mktemp("head")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    dashboard = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2",
             f"--port={gcs.split(':')[1]}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
             "--node-ip-address=127.0.0.1"],
            env={**ENV, **token, **watching}, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _listens(dashboard):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{dashboard}", token
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group that this test began, and no other; SIGTERM it ignores
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.timeout(900)
def test_submit_watch_and_fetch(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, token = head
    spec = write_spec(tmp_path, "submitted", store=f"file://{tmp_path}/runs")
    done = vitpipe("submit", spec, "--address", address, "--watch", "--json", cwd=tmp_path, env=token)
    assert json.loads(done.stdout.splitlines()[0])["job"]
    run = tmp_path / "runs" / "submitted"
    nodes = json.loads(vitpipe("status", run, "--json", cwd=tmp_path).stdout)["nodes"]
    assert {node["state"] for node in nodes} == {"committed"}
    vitpipe("artifacts", "get", run, "backbone", tmp_path / "backbone", cwd=tmp_path)
    assert (tmp_path / "backbone" / "metrics.jsonl").exists()


def ask(head: tuple[str, dict[str, str]], path: str) -> Any:
    address, token = head
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {token['RAY_AUTH_TOKEN']}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_dashboard_shows_a_run_by_its_names(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """Of the run that the test before has submitted."""
    (job,) = [one for one in ask(head, "/api/jobs/") if one["metadata"].get("vitpipe_run") == "submitted"]
    assert job["entrypoint"] == "sh python.sh -m vitpipe.pipeline run spec.yaml"
    assert job["metadata"]["job_name"] == "submitted" and job["metadata"]["vitpipe_spec"] == "submitted.yaml"
    assert job["metadata"]["vitpipe_store"].startswith("file:///")
    tasks = {one["name"] for one in ask(head, "/api/v0/tasks?limit=10000")["data"]["result"]["result"]}
    assert {name.partition("/")[0] for name in tasks if "/" in name} >= {"glyphs", "digits"}, tasks
    assert not [name for name in tasks if "counts" in name], "what is no work of the run is not among them"


JOIN = """
import os, sys
from vitpipe.infra.ray import connect
with connect.connect("joined", address=sys.argv[1], about={"job_name": "joined", "vitpipe_run": "joined"}):
    print("joined", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_joined_has_its_metadata_too(head: tuple[str, dict[str, str]], gcs: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", JOIN, gcs], env={**ENV, **head[1], "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "joined\n"
    (job,) = [one for one in ask(head, "/api/jobs/") if one["metadata"].get("vitpipe_run") == "joined"]
    process.communicate(timeout=60)
    assert job["type"] == "DRIVER" and job["metadata"]["job_name"] == "joined"


def test_the_metrics_tab_finds_prometheus_and_grafana(
    head: tuple[str, dict[str, str]], watching: dict[str, str]
) -> None:
    assert ask(head, "/api/prometheus_health")["result"]
    grafana = ask(head, "/api/grafana_health")["data"]
    assert grafana["grafanaHost"] == watching["RAY_GRAFANA_IFRAME_HOST"] and grafana["dashboardUids"]
    boards = Path(watching["RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"])
    assert {"grafana-dashboard.json", "default_grafana_dashboard.json"} <= {path.name for path in boards.iterdir()}


def test_without_the_token_it_is_refused(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, _ = head
    spec = write_spec(tmp_path, "refused", store=f"file://{tmp_path}/runs")
    vitpipe("submit", spec, "--address", address, cwd=tmp_path, env={"RAY_AUTH_MODE": "token"}, expect=7)
    assert not (tmp_path / "runs" / "refused").exists()
