"""A cluster of its own (`ray start --head` with a token): submitted, watched from another process, fetched."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import ENV, PATIENCE_S, vitpipe, write_spec

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node with token authentication; its dashboard's address and the environment that may use it."""
    folder = tmp_path_factory.mktemp("head")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    dashboard = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2",
             f"--port={free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
             "--node-ip-address=127.0.0.1"],
            env={**ENV, **token}, cwd=folder, stdout=log, stderr=log, start_new_session=True,
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


def test_without_the_token_it_is_refused(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, _ = head
    spec = write_spec(tmp_path, "refused", store=f"file://{tmp_path}/runs")
    vitpipe("submit", spec, "--address", address, cwd=tmp_path, env={"RAY_AUTH_MODE": "token"}, expect=7)
    assert not (tmp_path / "runs" / "refused").exists()
