"""Jobs of a real Slurm on two hosts: a run to its report, one taken back and requeued, a look by the doctor."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.driving import write_spec
from slurm_world import Slurm

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 900


@pytest.fixture
def vitpipe(slurm: Slurm, tmp_path: Path) -> Callable[..., str]:
    """Runs a command on the login node; what it printed."""

    def run(*words: object, expect: int = 0) -> str:
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        command = [sys.executable, "-m", "vitpipe.pipeline", *words]
        done = slurm.run(*command, cwd=tmp_path, env=environment)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_run_to_its_report_and_what_it_was_given(slurm: Slurm, vitpipe: Callable[..., str], tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "small", transfer=True)
    sent = json.loads(vitpipe("submit", spec, "--slurm", "--nodes", "2", "--sbatch", "exclusive", "--json"))
    ended = slurm.wait(sent["job"], "COMPLETED", "FAILED", seconds=PATIENCE_S)
    log = Path(sent["log"]).read_text()
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), log
    assert "head node1" in log and "node2 joined, 1 CPUs and 0 GPUs of its job" in log and "the report:" in log
    run = tmp_path / "runs/small"
    assert json.loads((run / "table/record.json").read_text())["output"]


def test_taken_back_and_requeued_it_goes_on(slurm: Slurm, vitpipe: Callable[..., str], tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "taken", steps=1500)
    sent = json.loads(vitpipe("submit", spec, "--slurm", "--nodes", "2", "--sbatch", "exclusive", "--json"))
    step = tmp_path / "runs/taken/backbone/a1"
    deadline = time.monotonic() + PATIENCE_S
    while not list(step.glob("step-*/manifest.json")):
        assert time.monotonic() < deadline and slurm.state(sent["job"])["JobState"] != "FAILED"
        time.sleep(1)
    slurm.run("scancel", "--signal=TERM", sent["job"], cwd=tmp_path)
    spec.write_text("# edited since: a job that comes back is the run that was submitted\n")
    while not list((tmp_path / "runs/taken/backbone").glob("a2*/attempt.json")):
        assert time.monotonic() < deadline, Path(sent["log"]).read_text()
        time.sleep(1)
    deadline = time.monotonic() + PATIENCE_S
    while "resumed" not in (log := Path(sent["log"]).read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(1)
    assert slurm.state(sent["job"])["Restarts"] == "1" and "back into the queue" in log
    vitpipe("stop", "file://./runs/taken")
    ended = slurm.wait(sent["job"], "FAILED", "COMPLETED", seconds=PATIENCE_S)
    assert (ended["ExitCode"], ended["Restarts"]) == ("6:0", "1"), "who stops a run wants it to stay stopped"


def test_the_doctor_looks_at_both_hosts(slurm: Slurm, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "VITPIPE_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = ("doctor", "--cluster", "--json", "--store", f"file://{tmp_path}/runs")
    sent = slurm.run("sbatch", "--parsable", "--nodes=2", "--output=log", "--error=errors",
                     ROOT / "infra/deploy/slurm.sh", *words, cwd=tmp_path, env=environment)  # fmt: skip
    slurm.wait(sent.stdout.strip(), "COMPLETED", "FAILED", seconds=PATIENCE_S)
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    checks = {check["name"]: check for check in json.loads(line)["checks"]}
    assert "node1, node2" in checks["nodes"]["found"], checks
    assert checks["between nodes"]["ok"] and checks["between nodes"]["found"].startswith("2 pairs")
    assert checks["network"]["ok"] and "GB/s" in checks["network"]["found"]
