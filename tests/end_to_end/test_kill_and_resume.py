"""What is killed goes on, and ends with the numbers of a run that nobody disturbed: SIGKILL of driver and rank."""

import os
import random
import signal
from pathlib import Path

import pytest
from driving import finish, kill, losses, progress, start, state_digests, vitpipe, wait_for, write_spec

STEPS = {0: 900, 3: 400}
"""By ZeRO stage: a quiet machine does ninety a second at stage 0, and a rank has to be caught at work."""


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("zero", STEPS)
def test_killed_driver_and_killed_rank_change_nothing(zero: int, tmp_path: Path) -> None:
    calm = write_spec(tmp_path, "calm", steps=STEPS[zero], every=50, zero=zero)
    vitpipe("run", calm, cwd=tmp_path)
    rough = write_spec(tmp_path, "rough", steps=STEPS[zero], every=50, zero=zero)
    run = tmp_path / "runs" / "rough"

    first = start("run", rough, cwd=tmp_path)
    moment = random.Random(os.urandom(8)).randrange(1, STEPS[zero] // 3)
    wait_for(f"step {moment}", lambda: progress(run, "backbone").get("step", 0) >= moment, first)
    kill(first)

    second = start("run", rough, cwd=tmp_path)
    state = wait_for("ranks", lambda: _ranks_of(run, 2, STEPS[zero] - 50), second)
    os.kill(state[1]["pid"], signal.SIGKILL)
    finish(second)

    assert losses(run) == losses(tmp_path / "runs" / "calm"), f"killed at step {moment}"
    assert state_digests(run) == state_digests(tmp_path / "runs" / "calm")


def _ranks_of(run: Path, fence: int, before: int) -> list[dict[str, int]]:
    found = progress(run, "backbone")
    if found.get("fence") != fence or not 0 < found.get("step", 0) < before:
        return []
    return sorted(found["ranks"], key=lambda rank: rank["rank"])
