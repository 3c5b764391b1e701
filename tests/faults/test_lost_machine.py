"""A machine vanishes under its work: another takes over, or the end names what is missing; never pending for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


def lose_machine(what: str, comes_back: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("losing_machines.py"), what, comes_back, folder],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(("what", "ends"), [("fan", ["7"]), ("gang", ["rank-0", "rank-1"])])
def test_another_machine_takes_over(what: str, ends: list[str], tmp_path: Path) -> None:
    result = lose_machine(what, "yes", tmp_path)
    assert result["marks"] == ends and result["found"] in ("[7]", "done")


@pytest.mark.parametrize("what", ["fan", "gang"])
def test_what_is_missing_is_named_after_the_wait(what: str, tmp_path: Path) -> None:
    result = lose_machine(what, "no", tmp_path)
    assert "StageError" in result["found"] and "orkers unavailable after 20 s" in result["found"]
    assert "2 CPU) asked for, room for 0" in result["found"]


def test_a_fan_out_ends_in_our_words_when_the_head_is_lost(tmp_path: Path) -> None:
    """Ray would end the driver after a minute, and say nothing of what to do."""
    result = lose_machine("head", "no", tmp_path)
    assert result["found"].startswith("Lost: ") and "the cluster is gone" in result["found"]
    assert result["seconds"] < 60


def test_a_notice_is_committed_within_its_grace_and_charged_to_nobody(tmp_path: Path) -> None:
    """No failure is allowed here: only a preemption may start the gang again."""
    result = lose_machine("notice", "yes", tmp_path)
    assert (result["found"], result["marks"]) == ("done", ["noticed", "rank-0", "rank-1"])
    assert (tmp_path / "noticed").read_text().startswith("preemption: ")


def test_a_gang_goes_on_with_the_machines_that_are_left(tmp_path: Path) -> None:
    result = lose_machine("elastic", "no", tmp_path)
    assert (result["found"], result["marks"]) == ("done", ["world-1", "world-2"])
