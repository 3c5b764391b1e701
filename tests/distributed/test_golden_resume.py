"""Golden runs: two ranks disturbed at every place, and what comes of it equals an undisturbed run to the last bit."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic
from states import committed, curve, differing
from tiny_pretraining import KillsAt, StopsAt, context, pretrain, recipe
from torch import Tensor

from vitpipe.infra.errors import Stopped
from vitpipe.infra.faults import SETTING
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.contract import StageContext

MIXING = recipe(augment={"mixup": 0.2, "cutmix": 1.0}, ema={"decay": 0.9})
STEP_FAULTS = {"kill at step 0": 1, "kill mid-step": 8, "kill at the last step": 10}
"""The question, one a step, at which a fence kills a rank: after the update, before anybody has read its facts."""
SAVE_FAULTS = ("save:copy", "save:write", "save:upload", "save:uploaded", "save:committed")
"""While step 6 is saved; `save:committed` is reached on rank 0 alone."""
OTHER_FAULTS = ("SIGTERM twice",)
FAULTS = (*STEP_FAULTS, *SAVE_FAULTS, *OTHER_FAULTS)
IN_CI = [(fault, number % 4) for number, fault in enumerate(FAULTS)] + [
    ("save:upload", 0), ("save:copy", 1), ("kill mid-step", 2), ("save:committed", 1), ("SIGTERM twice", 3),
]  # fmt: skip
"""Each fault once and each ZeRO stage at least twice."""
PAIRS = [pair for pair in itertools.product(FAULTS, (0, 1, 2, 3), (8, 12)) if pair[:2] not in IN_CI or pair[2] == 12]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    # four classes: what two ranks cannot halve is padded by DeepSpeed with memory as it finds it
    return synthetic.shards(tmp_path_factory.mktemp("shards"), classes=("red", "yellow", "green", "blue"))


Golden = tuple[list[dict[str, Any]], dict[str, Tensor]]
_undisturbed: dict[tuple[int, int], Golden] = {}


def undisturbed(folder: Path, shards: Artifact, zero: int, micro_batch: int) -> Golden:
    """Curve and state of the run that nothing happens to; computed once for each way of making it."""
    if (zero, micro_batch) not in _undisturbed:
        ctx = context(folder, node="whole", zero=zero, workers=2, micro_batch=micro_batch)
        made = pretrain(MIXING, ctx, shards)
        _undisturbed[zero, micro_batch] = curve(ctx, made), committed(ctx, made)
    return _undisturbed[zero, micro_batch]


class Disturbed:
    """Attempts at one training, each going on from those before."""

    def __init__(self, folder: Path, shards: Artifact, zero: int, micro_batch: int) -> None:
        self.folder, self.shards, self.told = folder, shards, {"zero": zero, "workers": 2, "micro_batch": micro_batch}
        self.attempts: list[str] = []

    def attempt(self, fence: Any = None) -> tuple[StageContext, Any]:
        name, earlier = f"a{len(self.attempts) + 1}", tuple(reversed(self.attempts))
        self.attempts.append(name)
        ctx = context(self.folder, name, earlier, fence=fence, **self.told)
        return ctx, pretrain(MIXING, ctx, self.shards)

    def disturb(self, fault: str, patch: pytest.MonkeyPatch) -> None:
        if fault in STEP_FAULTS:
            with pytest.raises(RuntimeError, match="-9"):
                self.attempt(KillsAt(STEP_FAULTS[fault]))
        elif fault == "SIGTERM twice":
            for _ in range(2):
                with pytest.raises(Stopped):
                    self.attempt(StopsAt(4))
        else:
            rank = 0 if fault == "save:committed" else 1
            asked = {"point": fault, "step": 6, "rank": rank, "do": "kill", "once": str(self.folder / "mark")}
            # a surviving rank's broken connection may be told before the death that broke it
            with patch.context() as patched, pytest.raises(RuntimeError, match=r"-9|peer"):
                patched.setenv(SETTING, json.dumps([asked]))
                self.attempt()
            assert (self.folder / "mark").exists()


FROM = {
    "kill at step 0": None, "kill mid-step": "[36]", "kill at the last step": "[69]", "save:copy": "3",
    "save:write": "3", "save:upload": "3", "save:uploaded": "3", "save:committed": "6", "SIGTERM twice": r"\d+",
}  # fmt: skip
"""The step that the last attempt goes on from: the newest committed one, which may have been under way."""


def check(fault: str, zero: int, micro_batch: int, folder: Path, shards: Artifact, patch: pytest.MonkeyPatch) -> None:
    run = Disturbed(folder, shards, zero, micro_batch)
    run.disturb(fault, patch)
    ctx, found = run.attempt()
    resumed = ctx.events.of("resumed")  # type: ignore[attr-defined]
    wanted = FROM[fault]
    assert (resumed == []) if wanted is None else re.match(f"from step {wanted} of", resumed[-1])
    lines, state = undisturbed(folder, shards, zero, micro_batch)
    assert curve(ctx, found) == lines
    assert any("exp_avg_sq" in name for name in state)
    assert differing(committed(ctx, found), state) == []


@pytest.mark.parametrize(("fault", "zero"), IN_CI)
def test_disturbed_is_the_undisturbed_run(
    fault: str, zero: int, tmp_path: Path, shards: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(fault, zero, 8, tmp_path, shards, monkeypatch)


@pytest.mark.drill
@pytest.mark.parametrize(("fault", "zero", "micro_batch"), PAIRS)
def test_every_pair(
    fault: str, zero: int, micro_batch: int, tmp_path: Path, shards: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(fault, zero, micro_batch, tmp_path, shards, monkeypatch)


def test_the_comparison_can_fail(tmp_path: Path, shards: Artifact) -> None:
    """Negative control: another seed is another curve and another state."""
    ctx = context(tmp_path, workers=2)
    made = pretrain(MIXING.model_copy(update={"seed": 1}), ctx, shards)
    lines, state = undisturbed(tmp_path, shards, 1, 8)
    assert curve(ctx, made) != lines and differing(committed(ctx, made), state)
