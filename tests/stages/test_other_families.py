"""A hybrid and a ResNet through the stages: planned, pretrained, converted, fine-tuned at another size, probed."""

from pathlib import Path

import pytest
import torch
from inprocess import commit, make_context
from synthetic import shards
from tiny_pretraining import context, pretrain, recipe

from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.estimates import Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import estimate as estimate_evaluation
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.estimate import estimate as estimate_finetuning
from vitpipe.stages.finetune.run import run as finetune
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate as estimate_pretraining
from vitpipe.stages.variants import RESNETS, ResNet
from vitpipe.stages.vit.init import initial_value
from vitpipe.stages.vit.native import load_weights

KNOWN = Known(gpus=0, gpu_flops=1e15, cpu_flops=1e11)


def recipe_of(variant: str, **changes: object) -> PretrainConfig:
    model = {"variant": variant, "image_px": 32, "stochastic_depth": 0.1}
    short = {"total": "2 steps", "batch_images": 8, "optimizer": {"peak_lr": 1e-3, "weight_decay": 0.1}}
    return recipe(model=model, schedule={"warmup": "0 steps"}, **short, **changes)


@pytest.mark.parametrize("variant", ["R+Ti/16", "R8x1"])
def test_every_stage_takes_it(tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESNETS, "R8x1", ResNet((1, 1), 1))
    data = shards(tmp_path, counts={"train": 12, "test": 6}, image_px=40)
    config = recipe_of(variant)
    ctx = context(tmp_path, micro_batch=4, checkpoint_every="2 steps", activation_checkpointing="blocks")
    planned = estimate_pretraining(config, ctx.resources, {"shards": (data,)}, KNOWN)
    assert planned.flops and planned.memory_bytes and planned.model and planned.model.variant == variant
    checkpoint = commit(ctx, pretrain(config, ctx, data), stage="pretrain")
    assert isinstance(checkpoint, Checkpoint) and checkpoint.step == 2

    converting = make_context(tmp_path, "weights", ConvertResources())
    made = convert(ConvertConfig(formats=("native",)), Inputs({"checkpoint": (checkpoint,)}), converting)
    weights = commit(converting, made, stage="convert")
    settings, state = load_weights(weights, tmp_path / "mine")
    moved = {name for name, tensor in state.items() if not torch.equal(tensor, initial_value(name, tensor.shape, 0))}
    assert moved >= {name for name in state if name.endswith(("conv.weight", "conv1.weight", "head.weight"))}
    assert all(tensor.isfinite().all() for tensor in state.values())

    given, tuning = {"data": [data], "weights": [weights]}, FinetuneResources(threads=1)
    recipe = FinetuneConfig(image_px=48, batch_images=6, total="2 steps", peak_lr=0.01, warmup="0 steps", seeds=(0,),
                            crop="none", precision="fp32")  # fmt: skip
    assert estimate_finetuning(recipe, tuning, given, KNOWN).memory_bytes
    score = finetune(recipe, Inputs(given), make_context(tmp_path, "transfer", tuning))
    assert 0 <= score.value <= 1 and score.num_test == 6

    probing = EvaluateConfig(method="fewshot", shots=(2,), seeds=(0,))
    assert estimate_evaluation(probing, EvaluateResources(), given, KNOWN).flops
    probed = evaluate(probing, Inputs(given), make_context(tmp_path, "probe", EvaluateResources(batch_images=6)))
    assert probed.num_test == 6 and settings.image_px == 32


@pytest.mark.parametrize("variant", ["R26+S/32", "R50x1"])
def test_recomputing_blocks_is_planned_with_less_memory(tmp_path: Path, variant: str) -> None:
    data = shards(tmp_path, counts={"train": 12, "test": 6})
    found = []
    for how in ("none", "blocks"):
        resources = PretrainResources(micro_batch=8, activation_checkpointing=how)
        found.append(estimate_pretraining(recipe_of(variant), resources, {"shards": (data,)}, KNOWN).memory_bytes)
    assert found[1] < found[0]
