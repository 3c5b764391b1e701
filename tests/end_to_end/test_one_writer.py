"""Two drivers on one run: the second leaves; a paused one that was overtaken commits nothing when it wakes."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from driving import PATIENCE_S, finish, progress, signal_all, start, vitpipe, wait_for, write_spec


def everything(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("record*.json"))}


def alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(1200)
def test_second_driver_leaves_and_a_paused_one_is_overtaken(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "one", steps=4000)
    run = tmp_path / "runs" / "one"
    first = start("run", spec, cwd=tmp_path)
    wait_for("training", lambda: progress(run, "backbone").get("step", 0) > 0, first)

    began = time.monotonic()
    second = vitpipe("run", spec, "--json", cwd=tmp_path, expect=5)
    assert json.loads(second.stdout)["error"]["code"] == 5
    assert json.loads((run / "lease.json").read_text())["fence"] == 1
    assert time.monotonic() - began < PATIENCE_S

    ranks = [rank["pid"] for rank in progress(run, "backbone")["ranks"]]
    os.kill(first.pid, signal.SIGSTOP)
    try:
        third = start("run", spec, cwd=tmp_path)
        wait_for("the takeover", lambda: json.loads((run / "lease.json").read_text())["fence"] == 2, third)
        wait_for("the first driver's ranks to leave", lambda: not any(alive(pid) for pid in ranks))
        vitpipe("stop", run, cwd=tmp_path)
        finish(third, expect=6)
        before = everything(run)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    finish(first, expect=5)
    assert everything(run) == before
    assert not (run / "backbone" / "record.json").exists()


@pytest.mark.timeout(900)
def test_sigterm_to_everybody_commits_a_checkpoint(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "term", steps=3000)
    run = tmp_path / "runs" / "term"
    process = start("run", spec, cwd=tmp_path)
    wait_for("training", lambda: progress(run, "backbone").get("step", 0) > 2, process)
    signal_all(process, signal.SIGTERM)
    finish(process, expect=6)
    manifests = list((run / "backbone").glob("a1*/step-*/manifest.json"))
    assert manifests, "a checkpoint was committed on the way out"
    events = vitpipe("events", run, "--json", cwd=tmp_path).stdout
    assert {json.loads(line)["kind"] for line in events.splitlines()} >= {"started", "checkpoint_committed"}
