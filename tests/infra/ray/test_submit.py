"""Jobs on a cluster of its own with a token; open, silent and foreign ones are refused."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitpipe.infra.errors import StorageError
from vitpipe.infra.ray import auth as ray_auth

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def gcs_port() -> int:
    """Where the head's GCS listens."""
    return free_port()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, gcs_port: int) -> Iterator[str]:
    """`ray start --head` with this user's token, its processes in a group of their own; the dashboard's address.

    No token of its own: a process that has used Ray keeps the token that it used first.
    """
    folder, port = tmp_path_factory.mktemp("head"), free_port()
    ray_auth.ensure_token()
    secret = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2",
             f"--port={gcs_port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}",
             f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
             "--object-store-memory=100000000"],
            env={**os.environ, **secret}, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            patch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # must not divert a submission
            wait_for(f"http://127.0.0.1:{port}", process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            end_group(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            return ray_auth.refuse_open(address)
        except StorageError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what this test began, and nothing else; `ray start --block` does not end on SIGTERM."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


@pytest.fixture
def jobs(head: str):
    from vitpipe.infra.ray.jobs import Jobs

    return Jobs(head)


def test_a_job_runs_our_code_with_the_files_it_was_given(jobs) -> None:
    submitted = jobs.submit(["validate", "given.yaml", "--json"], {"given.yaml": "version: 2\n"}, "checked")
    assert submitted.dashboard_url == f"{jobs.address}/#/jobs/{submitted.job}"
    followed = "".join(jobs.follow(submitted.job))
    state = jobs.wait(submitted.job)
    assert (state.status, state.exit_code) == ("FAILED", 2), jobs.logs(submitted.job)
    assert '"code": 2' in jobs.logs(submitted.job) and '"code": 2' in followed


def test_a_job_reads_like_the_command_and_carries_no_secret(jobs, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-submitter")
    about = {"vitpipe_run": "harmless", "vitpipe_store": "s3://bucket/runs", "vitpipe_spec": "harmless.yaml"}
    job = jobs.submit(["--help"], {}, "harmless", about).job
    assert jobs.wait(job).exit_code == 0
    request = urllib.request.Request(f"{head}/api/jobs/", headers={"Authorization": f"Bearer {ray_auth.token()}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        listed = json.load(answer)
    (ours,) = [one for one in listed if one["submission_id"] == job]
    assert ours["entrypoint"] == "sh python.sh -m vitpipe.pipeline --help" and ours["metadata"] == about
    text = json.dumps(ours)
    assert job in text and "canary" not in text and ray_auth.token() not in text


def test_what_ray_says_of_itself_is_left_out(jobs) -> None:
    from vitpipe.infra.ray.jobs import said_by_the_command

    submitted = jobs.submit(["--version"], {}, "quiet")
    assert jobs.wait(submitted.job).exit_code == 0
    whole, followed = jobs.logs(submitted.job), "".join(jobs.follow(submitted.job))
    assert "INFO job_manager" in whole and "INFO job_manager" not in followed
    assert followed.strip() and followed in whole
    assert said_by_the_command("20:00:01 INFO of ours\nplain") == "20:00:01 INFO of ours\nplain"


def test_a_job_can_be_stopped(jobs) -> None:
    job = jobs._run(["http.server", "0"], {}, "endless").job
    while jobs.state(job).status == "PENDING":
        time.sleep(0.2)
    jobs.stop(job)
    assert jobs.wait(job, timeout_s=120).status == "STOPPED"


def test_a_store_that_all_see_is_accepted_and_left_clean(jobs, tmp_path: Path) -> None:
    jobs.require_shared(f"file://{tmp_path}/runs")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_a_node_does_not_see_is_refused(jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = jobs._run

    def elsewhere(module, files, name):
        return real([module[0], f"file://{tmp_path}/another-machine", *module[2:]], files, name)

    monkeypatch.setattr(jobs, "_run", elsewhere)
    with pytest.raises(StorageError, match="does not see it"):
        jobs.require_shared(f"file://{tmp_path}/runs")


def test_another_token_and_none_are_told_apart(head: str, tmp_path: Path) -> None:
    # in a process of its own: Ray keeps a process's token
    script = f"from vitpipe.infra.ray.jobs import Jobs; Jobs({head!r})"
    env = {**os.environ, "RAY_AUTH_TOKEN": "0" * 32}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 1 and "the token in RAY_AUTH_TOKEN is not its token" in done.stderr
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    env |= {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 1 and "there is no token on this machine" in done.stderr
    assert f"Put the cluster's token into {tmp_path / 'none'}" in done.stderr


class _Open(http.server.BaseHTTPRequestHandler):
    status, body = 200, b"[]"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        return None


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b"[]", "to a request without a token: anyone may run code"),
        (200, b"<html>", "it answered 200 where Ray's dashboard"),
        (302, b"", "it answered 302 where Ray's dashboard"),
        (404, b"[]", "it answered 404 where Ray's dashboard"),
    ],
)
def test_a_cluster_that_asks_for_no_token_is_refused_and_what_is_none_is_told(status, body, found) -> None:
    from vitpipe.infra.ray.jobs import Jobs

    handler = type("Handler", (_Open,), {"status": status, "body": body})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(StorageError, match=found):
            Jobs(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def test_the_port_of_the_gcs_is_no_dashboard(head: str, gcs_port: int) -> None:
    from vitpipe.infra.ray.jobs import Jobs

    with pytest.raises(StorageError, match=r"does not speak HTTP.*that may be the port of Ray's GCS.*port 8265"):
        Jobs(f"http://127.0.0.1:{gcs_port}")


def test_an_address_that_does_not_answer_is_refused() -> None:
    from vitpipe.infra.ray.jobs import Jobs

    with pytest.raises(StorageError, match="no answer"):
        Jobs("127.0.0.1:1")
