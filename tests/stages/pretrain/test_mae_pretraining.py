"""Pretraining a masked autoencoder, from images without classes to an encoder that is fine-tuned: one rank here."""

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
from inprocess import commit, make_context
from photos import ingest, photo_folder
from tiny_pretraining import RECIPE, StopsAt, context, pretrain, recipe

from vitpipe.infra.errors import Stopped, UsageError
from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.run import run as finetune
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, check
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.native import load_weights
from vitpipe.stages.vit.visible import fixed_table

SMALL = {**RECIPE["model"], "variant": {**RECIPE["model"]["variant"], "patch_px": 4}}
MAE: dict[str, Any] = {"kind": "mae", "decoder": {"layers": 1, "width": 16, "heads": 2}}
L16: dict[str, Any] = {"variant": "L/16", "image_px": 224}


def hiding(**changes: Any) -> PretrainConfig:
    return recipe(**{"objective": MAE, "model": SMALL, **changes})


def losses(ctx: StageContext, made: Checkpoint) -> list[str]:
    lines = ctx.out.node.read(made.file("metrics.jsonl").at).splitlines()
    return [json.loads(line)["loss_hex"] for line in lines]


def test_images_without_classes_become_an_encoder_that_others_use(tmp_path: Path) -> None:
    photo_folder(tmp_path / "in", per_class=10)
    source = {"kind": "folder", "root": str(tmp_path / "in/class-0"), "labels": "none"}
    unlabelled = ingest(tmp_path, {"source": source, "splits": {"train": 0.5, "test": 0.5}})
    named, ctx = synthetic.shards(tmp_path), context(tmp_path)
    watched = {"every": "3 steps", "fewshot": {"shots": [2], "seeds": [0]}}
    recipe_of_few = hiding(total="6 steps", ema={"decay": 0.5}, evaluate=watched)
    trained = commit(ctx, pretrain(recipe_of_few, ctx, unlabelled, probes=named))
    measured = [json.loads(line) for line in trained.read("evaluation.jsonl").splitlines()]
    assert [line["step"] for line in measured] == [3, 6] and "accuracy" not in measured[0]
    assert all(0 < line["loss"] < 5 and set(line["fewshot"]["colours"]) == {"2"} for line in measured)
    assert trained.step == 6 and trained.model.classes == 0 and trained.read_json("labels.json") == {"id2label": {}}
    for use in ("params", "ema"):
        ctx = make_context(tmp_path, f"weights-{use}", ConvertResources())
        wanted = ConvertConfig.model_validate({"formats": ["native", "timm"], "use": use})
        weights = commit(ctx, convert(wanted, Inputs({"checkpoint": (trained,)}), ctx))
        settings, state = load_weights(weights, tmp_path / use)
        build_model(settings).load_state_dict(state)  # the encoder alone
        parity = weights.read_json("parity.json")
        assert parity["timm"]["error"] <= 1e-5
        places = fixed_table(settings.grid, settings.sizes.width, class_token=True)
        assert (state["pos_embed"].numpy() == places).all(), "they stayed as they were, and are written"
    data = Inputs({"data": (named,), "weights": (weights,)})
    tuned = FinetuneConfig.model_validate(
        {"batch_images": 6, "total": "2 steps", "peak_lr": 0.01, "seeds": (0,), "precision": "fp32"}
    )
    assert finetune(tuned, data, make_context(tmp_path, "tuned", FinetuneResources())).model.classes == 3
    probe = EvaluateConfig(method="fewshot", shots=(2,), seeds=(0,))
    assert evaluate(probe, data, make_context(tmp_path, "probe", EvaluateResources())).value > 0
    with pytest.raises(UsageError, match="no head"):
        evaluate(EvaluateConfig(method="classify"), data, make_context(tmp_path, "named", EvaluateResources()))


def test_the_loss_falls_as_patches_are_told_by_their_neighbours(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    still = hiding(total="40 steps", augment={"crop": "none"}, objective={**MAE, "norm_pixels": False})
    curve = [float.fromhex(one) for one in losses(ctx, pretrain(still, ctx, synthetic.shards(tmp_path, noise=0.0)))]
    assert curve[-1] < 0.6 * curve[0]


def test_a_resume_and_other_workers_hide_the_same_patches(tmp_path: Path) -> None:
    """Bit for bit after a stop, with other workings of memory too; on another cut of the batch to rounding."""
    shards, whole = synthetic.shards(tmp_path), context(tmp_path, node="whole")
    wanted = losses(whole, pretrain(hiding(), whole, shards))
    with pytest.raises(Stopped, match="step 5 is committed"):
        pretrain(hiding(), context(tmp_path, fence=StopsAt(4)), shards)
    again = context(tmp_path, "a2", ("a1",), activation_checkpointing="blocks")
    assert losses(again, pretrain(hiding(), again, shards)) == wanted
    plain = {**SMALL, "dropout": 0.0, "stochastic_depth": 0.0}
    cut = {}
    for micro in (8, 24):
        ctx = context(tmp_path, node=f"cut-{micro}", micro_batch=micro)
        cut[micro] = [float.fromhex(one) for one in losses(ctx, pretrain(hiding(model=plain), ctx, shards))]
    assert cut[8] == pytest.approx(cut[24], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"variant": "R50+B/16", "image_px": 224}}, "mae hides image patches, which a hybrid has not"),
        ({"model": {"variant": "R50x1", "image_px": 224}}, "which a resnet has not"),
        ({"model": {**L16, "image_px": 230}}, "leave some of it out: 230 = 14 x 16 + 6"),
        ({"model": {**SMALL, "image_px": 4}}, "4 px hold one of them"),
        ({"model": {**SMALL, "classes": 3}}, "leave model.classes 3 out"),
        ({"model": {**SMALL, "pool": "map"}}, "choose pool cls or gap"),
        ({"model": {**SMALL, "representation": "width"}}, "representation none"),
        ({"model": {**SMALL, "position": "relative"}}, "mae has no model.position relative"),
        ({"model": {**SMALL, "rope": {"kind": "eva02"}}}, "mae has no model.rope: leave it out"),
        ({"model": {**SMALL, "variant": {**SMALL["variant"], "width": 30}}}, "a multiple of 4, not 30"),
        ({"augment": {"cutmix": 1.0}}, "no labels to mix"),
        ({"objective": {**MAE, "mask_ratio": 0.99}}, "leaves none visible of 16 patches, int(16 x (1 - 0.99)) = 0"),
        ({"objective": {**MAE, "mask_ratio": 1e-17}}, "leaves none to rebuild of 16 patches"),
    ],
)  # fmt: skip
def test_what_cannot_be_hidden_is_refused(changes: dict[str, Any], message: str) -> None:
    assert [one for one in check(hiding(**changes), PretrainResources()) if message in one]
    for model in (SMALL, {**SMALL, "kept_branches": "unscaled"}):
        assert check(hiding(model=model), PretrainResources()) == []


def test_the_plan_knows_the_saving_and_the_decoder() -> None:
    images = {"shards": (Estimate(splits={"train": 4096}, num_classes=0),)}
    config = {"model": L16, "batch_images": 4096, "total": "1 steps", "precision": "bf16"}
    told, masked = (
        estimate(recipe(**config, objective={"kind": kind}), PretrainResources(micro_batch=64), images, Known(gpus=1))
        for kind in ("mae", "masked_patch")
    )
    assert told.flops < 0.4 * masked.flops  # type: ignore[operator]
    assert told.memory_bytes < masked.memory_bytes  # type: ignore[operator]
    assert told.bytes > masked.bytes  # type: ignore[operator]
