"""What is killed goes on, and ends with the numbers of a run that nobody disturbed.

SIGKILL of the driver, which leads the ranks, and of a rank.
"""

import os
import random
import signal
from pathlib import Path

import pytest
from driving import finish, kill, losses, progress, start, state_digests, vitpipe, wait_for, write_spec

from vitpipe.infra.events import read_events
from vitpipe.infra.storage.local import LocalStore

STEPS = {0: 1500, 3: 400}
"""By ZeRO stage: a quiet machine does ninety a second at stage 0, and ranks have to be caught at work, twice there."""


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("zero", [0, pytest.param(3, marks=pytest.mark.drill)])
def test_whoever_is_killed_changes_nothing(zero: int, tmp_path: Path) -> None:
    calm = write_spec(tmp_path, "calm", steps=STEPS[zero], every=50, zero=zero)
    vitpipe("run", calm, cwd=tmp_path)
    rough = write_spec(tmp_path, "rough", steps=STEPS[zero], every=50, zero=zero)
    run = tmp_path / "runs" / "rough"

    first = start("run", rough, cwd=tmp_path)
    moment = random.Random(os.urandom(8)).randrange(1, STEPS[zero] // 5)
    wait_for(f"step {moment}", lambda: progress(run, "backbone").get("step", 0) >= moment, first)
    kill(first)

    second = start("run", rough, cwd=tmp_path)
    state = wait_for("ranks", lambda: _ranks_of(run, 2, STEPS[zero] - 50), second)
    os.kill(state[1]["pid"], signal.SIGKILL)
    finish(second)
    (lost,) = [event.text for event in read_events(LocalStore(run)) if event.kind == "rank_lost"]
    assert lost.startswith("rank 1 (") and "failure 1 of 4" in lost
    assert (run / "backbone" / "a2.1" / "attempt.json").exists()

    assert losses(run) == losses(tmp_path / "runs" / "calm"), f"killed at step {moment}"
    assert state_digests(run) == state_digests(tmp_path / "runs" / "calm")


def _ranks_of(run: Path, fence: int, before: int) -> list[dict[str, int]]:
    found = progress(run, "backbone")
    if found.get("fence") != fence or not 0 < found.get("step", 0) < before:
        return []
    return sorted(found["ranks"], key=lambda rank: rank["rank"])
