"""Moments in bf16 through DeepSpeed's checkpoints: a resume is the undisturbed run at every way of keeping state."""

from pathlib import Path

import pytest
import synthetic
import torch
from states import committed, differing
from tiny_pretraining import StopsAt, context, pretrain, recipe

from vitpipe.infra.errors import Stopped


@pytest.mark.parametrize(
    ("zero", "precision", "kind"),
    [
        (0, "fp32", "adamw"),
        (0, "bf16", "adamw"),
        (1, "bf16", "adamw"),
        (2, "fp32", "sgd"),
        (3, "bf16", "adamw"),
        (1, "fp32", "lion"),
        (3, "bf16", "lion"),
    ],
)
def test_a_resume_is_the_undisturbed_run(tmp_path: Path, zero: int, precision: str, kind: str) -> None:
    lean = recipe(
        optimizer={"kind": kind, "peak_lr": 3e-3, "state_dtype": "bf16"}, precision=precision, ema={"decay": 0.9}
    )
    shards, whole = synthetic.shards(tmp_path), context(tmp_path, node="whole", zero=zero)
    wanted = committed(whole, pretrain(lean, whole, shards))
    with pytest.raises(Stopped):
        pretrain(lean, context(tmp_path, fence=StopsAt(4), zero=zero), shards)
    again = context(tmp_path, "a2", ("a1",), zero=zero)
    found = committed(again, pretrain(lean, again, shards))
    assert again.events.of("resumed")  # type: ignore[attr-defined]
    assert differing(found, wanted) == []
    name = "momentum_buffer" if kind == "sgd" else "exp_avg"
    assert {one.dtype for place, one in wanted.items() if place.startswith(f"{name}/")} == {torch.bfloat16}
    assert any("average/" in place for place in wanted)
