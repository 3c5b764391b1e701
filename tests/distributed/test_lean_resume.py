"""Moments in bf16 through DeepSpeed's checkpoints: a resume is the undisturbed run at every way of keeping state."""

from pathlib import Path

import pytest
import synthetic
import torch
from tiny_pretraining import StopsAt, context, pretrain, recipe
from tiny_training import tensors

from infra.errors import Stopped
from stages.artifacts import Checkpoint
from stages.contract import StageContext


@pytest.mark.parametrize(
    ("zero", "precision", "kind"),
    [(0, "fp32", "adamw"), (0, "bf16", "adamw"), (1, "bf16", "adamw"), (2, "fp32", "sgd"), (3, "bf16", "adamw")],
)
def test_a_resume_is_the_undisturbed_run(tmp_path: Path, zero: int, precision: str, kind: str) -> None:
    lean = recipe(
        optimizer={"kind": kind, "peak_lr": 3e-3, "state_dtype": "bf16"}, precision=precision, ema={"decay": 0.9}
    )
    shards, whole = synthetic.shards(tmp_path), context(tmp_path, node="whole", zero=zero)
    wanted = state(whole, pretrain(lean, whole, shards))
    with pytest.raises(Stopped):
        pretrain(lean, context(tmp_path, fence=StopsAt(4), zero=zero), shards)
    again = context(tmp_path, "a2", ("a1",), zero=zero)
    found = state(again, pretrain(lean, again, shards))
    assert again.events.of("resumed")  # type: ignore[attr-defined]
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    name = "momentum_buffer" if kind == "sgd" else "exp_avg"
    assert {one.dtype for place, one in wanted.items() if place.endswith(name)} == {torch.bfloat16}
    assert any("average" in place for place in wanted)


def state(ctx: StageContext, made: Checkpoint) -> dict[str, torch.Tensor]:
    folder = Path(ctx.out.node.uri.removeprefix("file://")) / Path(made.file(f"{made.folder}/manifest.json").at).parent
    return tensors(folder / "state")
