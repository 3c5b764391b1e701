"""Golden runs: ranks killed in the middle of a step, and what comes of it equals an undisturbed run to the last bit."""

import os
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import synthetic
from states import committed, curve, differing
from tiny_pretraining import context, pretrain, recipe


@dataclass
class KillsAt:
    """A fence that kills its process at the n-th question: after that step's update, before its facts are read."""

    step: int
    folder: Path
    asked: int = field(default=0)

    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        self.asked += 1
        if self.asked == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
        return None


@pytest.mark.parametrize("zero", [0, 3])
def test_killed_and_resumed_is_the_undisturbed_run(tmp_path: Path, zero: int) -> None:
    # four classes: what two ranks cannot halve is padded by DeepSpeed with memory as it finds it
    shards = synthetic.shards(tmp_path, classes=("red", "yellow", "green", "blue"))
    mixing = recipe(augment={"mixup": 0.2, "cutmix": 1.0})
    whole = context(tmp_path, node="whole", zero=zero, workers=2)
    wanted = pretrain(mixing, whole, shards)

    killed = context(tmp_path, fence=KillsAt(8, tmp_path), zero=zero, workers=2)
    with pytest.raises(RuntimeError, match="-9"):
        pretrain(mixing, killed, shards)
    again = context(tmp_path, "a2", ("a1",), zero=zero, workers=2)
    found = pretrain(mixing, again, shards)

    # the save of step 6 was perhaps under way
    assert re.match("from step [36] of attempt a1", again.events.of("resumed")[0])  # type: ignore[attr-defined]
    assert curve(again, found) == curve(whole, wanted)
    ours, theirs = committed(again, found), committed(whole, wanted)
    assert any("exp_avg_sq" in name for name in ours)
    assert differing(ours, theirs) == []
