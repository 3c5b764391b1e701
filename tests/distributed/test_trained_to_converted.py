"""From a real training to files others load: ZeRO 3 on two ranks in bf16, converted and proved in timm."""

from pathlib import Path

import synthetic
import torch
from inprocess import commit, make_context
from tiny_pretraining import context, pretrain, recipe

from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.native import load_weights


def test_a_trained_checkpoint_converts_and_proves_itself(tmp_path: Path) -> None:
    ctx = context(tmp_path, workers=2, zero=3)
    trained = commit(ctx, pretrain(recipe(precision="bf16"), ctx, synthetic.shards(tmp_path)))
    ctx = make_context(tmp_path, "weights", ConvertResources())
    weights = commit(ctx, run(ConvertConfig(formats=("native", "timm")), Inputs({"checkpoint": (trained,)}), ctx))
    proofs = weights.read_json("parity.json")
    assert proofs["native"]["round_trip"] == "bit-identical" and proofs["timm"]["error"] <= 1e-5
    assert weights.read_json("labels.json")["id2label"]["2"] == "blue"
    assert weights.read_json("timm/config.json")["label_names"] == ["red", "green", "blue"]
    settings, state = load_weights(weights, tmp_path / "mine")  # type: ignore[arg-type]
    head = state["head.weight"]
    assert head.abs().max() > 0 and not torch.equal(head, head.bfloat16().float())  # trained, and the fp32 masters
    ViT(settings).load_state_dict(state)
