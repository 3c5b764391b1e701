"""Pretraining by masked patches, from images to an encoder that is fine-tuned: one rank in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from inprocess import commit, make_context
from photos import ingest, photo_folder
from tiny_pretraining import RECIPE, StopsAt, context, pretrain, recipe
from tiny_vit import tiny

from vitpipe.infra.errors import Stopped, UsageError
from vitpipe.stages.artifacts import Checkpoint, Weights
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import estimate as estimate_evaluation
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.run import run as finetune
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, check
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.native import load_weights

SMALL = {**RECIPE["model"], "variant": {**RECIPE["model"]["variant"], "patch_px": 4}}

CELLS = {"kind": "masked_patch", "target": "rgb_4x4_3bit"}


def masked(target: str = "mean_rgb_3bit", **changes: Any) -> PretrainConfig:
    return recipe(**{"objective": {"kind": "masked_patch", "target": target}, "model": SMALL, **changes})


def losses(ctx: StageContext, made: Checkpoint) -> list[str]:
    lines = ctx.out.node.read(made.file("metrics.jsonl").at).splitlines()
    return [json.loads(line)["loss_hex"] for line in lines]


@pytest.mark.parametrize("target", ["mean_rgb_3bit", "rgb_4x4_3bit", "l2"])
def test_the_loss_falls(tmp_path: Path, target: str) -> None:
    """Flat colours per class: what is left of a patch is told by its neighbours."""
    ctx = context(tmp_path)
    still = masked(target, total="40 steps", augment={"crop": "none"})
    curve = [float.fromhex(one) for one in losses(ctx, pretrain(still, ctx, synthetic.shards(tmp_path, noise=0.0)))]
    assert curve[-1] < 0.6 * curve[0]


def test_images_without_classes_are_enough(tmp_path: Path) -> None:
    photo_folder(tmp_path / "in", per_class=10)
    source = {"kind": "folder", "root": str(tmp_path / "in/class-0"), "labels": "none"}
    shards = ingest(tmp_path, {"source": source})
    assert shards.num_classes == 0
    ctx = context(tmp_path)
    trained = pretrain(masked(total="3 steps"), ctx, shards)
    assert trained.step == 3 and trained.model.classes == 0
    with pytest.raises(UsageError, match="no classes"):
        pretrain(recipe(), context(tmp_path, node="other"), shards)


def test_an_encoder_comes_out_that_others_use(tmp_path: Path) -> None:
    shards = synthetic.shards(tmp_path)
    ctx = context(tmp_path)
    trained = commit(ctx, pretrain(masked(), ctx, shards))
    assert trained.read_json("labels.json") == {"id2label": {}}
    weights = converted(tmp_path, trained)
    settings, state = load_weights(weights, tmp_path / "mine")
    assert settings.classes == 0
    build_model(settings).load_state_dict(state)
    assert weights.read_json("parity.json")["timm"]["error"] <= 1e-5
    tuned = FinetuneConfig.model_validate(
        {"batch_images": 6, "total": "2 steps", "peak_lr": 0.01, "seeds": (0,), "precision": "fp32"}
    )
    ctx = make_context(tmp_path, "tuned", FinetuneResources())
    assert finetune(tuned, Inputs({"data": (shards,), "weights": (weights,)}), ctx).model.classes == 3
    named = EvaluateConfig(method="classify")
    with pytest.raises(UsageError, match="no head"):
        evaluate(
            named,
            Inputs({"data": (shards,), "weights": (weights,)}),
            make_context(tmp_path, "named", EvaluateResources()),
        )
    with pytest.raises(UsageError, match="no head"):
        estimate_evaluation(named, EvaluateResources(), {"data": (shards,), "weights": (weights,)}, Known())


def test_a_resume_asks_the_same_patches(tmp_path: Path) -> None:
    shards, whole = synthetic.shards(tmp_path), context(tmp_path, node="whole")
    wanted = losses(whole, pretrain(masked(), whole, shards))
    with pytest.raises(Stopped, match="step 5 is committed"):
        pretrain(masked(), context(tmp_path, fence=StopsAt(4)), shards)
    again = context(tmp_path, "a2", ("a1",))
    assert losses(again, pretrain(masked(), again, shards)) == wanted


def converted(tmp_path: Path, trained: Any) -> Weights:
    ctx = make_context(tmp_path, "weights", ConvertResources())
    made = convert(ConvertConfig(formats=("native", "timm")), Inputs({"checkpoint": (trained,)}), ctx)
    weights = commit(ctx, made)
    assert isinstance(weights, Weights)
    return weights


def test_classes_may_be_learned_after_patches(tmp_path: Path) -> None:
    shards = synthetic.shards(tmp_path)
    ctx = context(tmp_path)
    weights = converted(tmp_path, commit(ctx, pretrain(masked(), ctx, shards)))
    still = recipe(total="1 steps", objective={"kind": "sigmoid"}, model=SMALL)
    ctx = context(tmp_path, node="after")
    first = float.fromhex(losses(ctx, pretrain(still, ctx, shards, init=weights))[0])
    wanted = 3 * torch.nn.functional.softplus(torch.tensor(-10.0)).item() + 10  # a zero head with its bias of -10
    assert first == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"variant": "R50+B/16", "image_px": 224}}, "which a hybrid has not"),
        ({"model": {"variant": "R50x1", "image_px": 224}}, "which a resnet has not"),
        ({"model": {**SMALL, "image_px": 7}}, "7 px hold one of them"),
        ({"model": {**SMALL, "classes": 3}}, "leave model.classes 3 out"),
        ({"model": {**SMALL, "pool": "map"}}, "choose pool cls or gap"),
        ({"model": {**SMALL, "representation": "width"}}, "representation none"),
        ({"model": {"variant": "H/14", "image_px": 28}, "objective": CELLS}, "14 px do not divide by 4"),
        ({"augment": {"mixup": 0.2}}, "no labels to mix"),
    ],
)  # fmt: skip
def test_what_has_no_patches_to_tell_is_refused(changes: dict[str, Any], message: str) -> None:
    assert [one for one in check(masked(**changes), PretrainResources()) if message in one]
    assert check(masked(), PretrainResources()) == []


def test_classes_are_needed_by_what_names_them() -> None:
    headless = tiny(classes=0).model_dump()
    assert check(recipe(model=headless), PretrainResources()) == [
        "objective softmax needs classes: leave model.classes out, or raise it"
    ]


def test_the_plan_counts_the_predictor() -> None:
    images = {"shards": (Estimate(splits={"train": 100}, num_classes=3),)}
    colours, cells = (
        estimate(masked(name), PretrainResources(), images, Known()) for name in ("mean_rgb_3bit", "rgb_4x4_3bit")
    )
    assert cells.flops - colours.flops == 10 * 24 * 3 * 16 * 15 * 512 * 32  # type: ignore[operator]
    assert cells.bytes - colours.bytes == 2 * 12 * 15 * 512 * 32  # type: ignore[operator]
