"""`use: ema`: the files hold the average that training kept, and nobody gets parameters in its name."""

from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from inprocess import commit, make_context
from tiny_checkpoint import commit_checkpoint
from tiny_pretraining import context, pretrain, recipe
from tiny_vit import tiny

from vitpipe.infra.errors import UsageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, check_inputs
from vitpipe.stages.convert.estimate import estimate
from vitpipe.stages.convert.run import run
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.training.checkpoint.committed_steps import STATE
from vitpipe.stages.training.checkpoint.state_files import StateFiles
from vitpipe.stages.vit.native import load_weights

AVERAGE = ConvertConfig(formats=("native", "timm"), use="ema")


def test_the_average_is_converted_bit_by_bit(tmp_path: Path) -> None:
    ctx = context(tmp_path, zero=2)
    trained = commit(ctx, pretrain(recipe(ema={"decay": 0.9}), ctx, synthetic.shards(tmp_path)))
    states = {}
    for use in ("params", "ema"):
        ctx = make_context(tmp_path, f"weights-{use}", ConvertResources())
        config = AVERAGE.model_copy(update={"use": use})
        assert estimate(config, ConvertResources(), {"checkpoint": (trained,)}, Known()).bytes
        weights: Any = commit(ctx, run(config, Inputs({"checkpoint": (trained,)}), ctx))
        proofs = weights.read_json("parity.json")
        assert proofs["native"]["round_trip"] == "bit-identical" and proofs["timm"]["error"] <= 1e-5
        _, states[use] = load_weights(weights, tmp_path / use)
    for file in trained.files:
        trained.fetch(file.path, tmp_path / "step")
    files = StateFiles(tmp_path / "step" / "step-10" / STATE, average=True)
    assert set(files.shapes) == set(states["ema"])
    for name, tensor in states["ema"].items():
        assert torch.equal(tensor, torch.from_numpy(files.array(name))), name
    assert not torch.equal(states["ema"]["head.weight"], states["params"]["head.weight"])


def test_no_average_is_refused_before_and_when_it_runs(tmp_path: Path) -> None:
    plain = commit_checkpoint(tmp_path, tiny())
    for given in (plain, Estimate(model=plain.model, averaged=False)):
        with pytest.raises(UsageError, match="training kept none"):
            estimate(AVERAGE, ConvertResources(), {"checkpoint": (given,)}, Known())
    with pytest.raises(UsageError, match="training kept none"):
        run(AVERAGE, Inputs({"checkpoint": (plain,)}), make_context(tmp_path, "weights", ConvertResources()))
    for known in (None, True):
        expected = Estimate(model=plain.model, averaged=known)
        assert estimate(AVERAGE, ConvertResources(), {"checkpoint": (expected,)}, Known()).bytes


def test_only_a_checkpoint_has_an_average() -> None:
    assert "give a `checkpoint`" in check_inputs(AVERAGE, frozenset({"weights"}))[0]
    assert check_inputs(AVERAGE, frozenset({"checkpoint"})) == []
