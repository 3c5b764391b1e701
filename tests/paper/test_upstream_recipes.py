"""The authors' later recipes: the shipped configs are theirs field by field, and whatever is planted is found alone."""

from pathlib import Path
from typing import Any

import pytest
from one_field import changed

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.conform import claimed_data, claimed_recipe, conform
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.finetune.config import FinetuneConfig
from vitpipe.stages.finetune.paper_fields import conform as conform_finetuning
from vitpipe.stages.paper.recipes import pretraining_rows
from vitpipe.stages.paper.upstream import pretraining_row, upstream
from vitpipe.stages.pretrain.config import PretrainConfig
from vitpipe.stages.pretrain.paper_fields import conform as conform_pretraining

RECIPES = sorted((Path(__file__).parents[2] / "configs/recipes").glob("*.yaml"))
OTHERS = {
    "batch_images": 512, "total": "60 epochs", "model.image_px": 256, "model.position": "sincos2d",
    "model.dropout": 0.05, "model.stochastic_depth": 0.05, "model.gelu": "erf", "model.norm_eps": 1e-5,
    "objective.kind": "softmax", "objective.head_bias": -3.0, "objective.label_smoothing": 0.1,
    "optimizer.kind": "sgd", "optimizer.peak_lr": 3e-4, "optimizer.betas": [0.9, 0.95], "optimizer.weight_decay": 0.05,
    "optimizer.clip_norm": None, "optimizer.state_dtype": "fp32", "schedule.kind": "linear",
    "schedule.warmup": "5k steps", "schedule.end_lr": 1e-5, "augment.crop": "resize", "augment.min_area": 0.08,
    "augment.antialias": True, "augment.flip": False, "augment.mixup": 0.3, "augment.cutmix": 1.0,
    "augment.randaugment": {"layers": 3, "magnitude": 10}, "ema": {"decay": 0.999}, "precision": "fp32",
    "evaluate.eval_resize": "squash", "layer_decay": 0.75, "model.pool": "map",
    "model.representation": 77, "model.variant": "L/32",
}  # fmt: skip
"""A value for each field that two of the recipes do not have."""
THEIR_OWN = {"objective.kind": "sigmoid", "model.position": "learned1d"}
"""Where the third has that value."""


def shipped(name: str) -> dict[str, dict[str, Any]]:
    """The configs, as written, of each pretraining and fine-tuning."""
    (path,) = [path for path in RECIPES if path.stem == name]
    nodes = load(path, (), env={}).graph.nodes.values()
    return {node.id: dict(node.raw) for node in nodes if isinstance(node.config, PretrainConfig | FinetuneConfig)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_shipped_recipe_deviates(path: Path) -> None:
    found = load(path, (), env={})
    compared = conform(found.graph, claimed_data(found.vars), claimed_recipe(found.vars))
    assert compared and {one.node: one.compared.deviations for one in compared if one.compared.deviations} == {}
    assert claimed_recipe(found.vars) or path.stem.startswith(("data-size", "mae-l16")), "the paper's own, and MAE's"


@pytest.mark.parametrize("field", OTHERS)
@pytest.mark.parametrize("recipe", ["augreg-i21k", "augreg-i1k", "vit-s16-i1k"])
def test_a_planted_deviation_is_found_alone(recipe: str, field: str) -> None:
    nodes = shipped(recipe if recipe != "vit-s16-i1k" else "vit-s16-i1k-90ep")
    config = nodes.get("backbone/b-16") or nodes["backbone"]
    value = THEIR_OWN.get(field, OTHERS[field]) if recipe == "vit-s16-i1k" else OTHERS[field]
    found = conform_pretraining(PretrainConfig.model_validate(changed(config, field, value)), None, recipe)
    with_it = {
        "objective.kind": {"objective.head_bias"}, "optimizer.kind": {"optimizer.betas"},
        "augment.crop": {"augment.min_area"},
    }  # fmt: skip
    assert {one.field for one in found.deviations} - with_it.get(field, set()) == {field}, "its own defaults aside"


@pytest.mark.parametrize(("node", "fields"), [
    ("l-16", {"randaugment": {"layers": 2, "magnitude": 15}, "mixup": 0.2}),
    ("b-32", {"randaugment": {"layers": 2, "magnitude": 15}, "mixup": 0.2}),
    ("s-32", {"randaugment": {"layers": 2, "magnitude": 0}}),
    ("r26-s-32", {"randaugment": {"layers": 2, "magnitude": 15}, "mixup": 0.5}),
    ("r50-l-32", {"mixup": 0.5}),
])  # fmt: skip
def test_settings_of_another_checkpoint_than_the_number_printed_are_found(node: str, fields: dict[str, Any]) -> None:
    config = shipped("augreg-i21k")[f"backbone/{node}"]
    for name, value in fields.items():
        config = changed(config, f"augment.{name}", value)
    found = conform_pretraining(PretrainConfig.model_validate(config), None, "augreg-i21k")
    assert {one.field for one in found.deviations} == {f"augment.{name}" for name in fields}
    assert all("name of the checkpoint" in one.where for one in found.deviations)


@pytest.mark.parametrize(("field", "value"), [
    ("peak_lr", [0.003, 0.01]), ("total", "10k steps"), ("crop", "resize"), ("dropout", 0.1), ("image_px", 224),
    ("eval_resize", "resize_crop"), ("antialias", True), ("warmup", "100 steps"),
])  # fmt: skip
def test_the_fine_tuning_of_a_recipe_is_its_own(field: str, value: Any) -> None:
    config = shipped("augreg-i21k")["transfer/b-16"]
    asked = "imagenet", "B/16", 224, "augreg-i21k"
    assert not conform_finetuning(FinetuneConfig.model_validate(config), *asked).deviations
    found = conform_finetuning(FinetuneConfig.model_validate(changed(config, field, value)), *asked)
    assert [one.field for one in found.deviations] == [field]


@pytest.mark.parametrize("recipe", ["mae", "beit", "deit3"])
@pytest.mark.parametrize(("field", "value"), [
    ("peak_lr", [0.003]), ("total", "10 epochs"), ("warmup", "100 steps"), ("end_lr", 1e-7), ("layer_decay", 0.9),
    ("optimizer", {"kind": "adamw", "weight_decay": 0.02}), ("augment", {"mixup": 0.8}), ("label_smoothing", 0.0),
    ("stochastic_depth", 0.7), ("clip_norm", 1.0), ("eval_resize", "resize_crop"), ("antialias", False),
])  # fmt: skip
def test_how_others_fine_tune_is_theirs(recipe: str, field: str, value: Any) -> None:
    config = shipped(f"{recipe}-finetune")["tuned"]
    asked = "imagenet", "B/16", 224, recipe
    assert not conform_finetuning(FinetuneConfig.model_validate(config), *asked).deviations
    found = conform_finetuning(FinetuneConfig.model_validate({**config, field: value}), *asked)
    assert [one.field for one in found.deviations] == [field]


def test_every_field_is_compared_and_names_its_source() -> None:
    papers = {one.field for row in pretraining_rows("B/16", "ImageNet", False) for one in row.expected}
    for recipe, facts in upstream().items():
        for variant in facts.get("models", ()):
            row = pretraining_row(recipe, variant)
            assert papers - {one.field for one in row.expected} == set()
            assert all(one.where and one.stated for one in row.expected)
    strange = pretraining_row("augreg-i21k", "H/14")
    assert "R50+L/32" in next(one.wanted for one in strange.expected if one.field == "model.variant")


def test_a_recipe_that_nobody_wrote_is_refused() -> None:
    with pytest.raises(UsageError, match=r"vars\.recipe is 'augreg'.*Name one of augreg-i21k"):
        claimed_recipe({"recipe": "augreg"})
    assert claimed_data({"recipe": "augreg-i21k"}) == "ImageNet-21k" and claimed_recipe({}) is None


@pytest.mark.parametrize("own", [["augreg-i21k"], {"peak_lr": 0.1}, 5, "mine"])
def test_a_variable_that_is_no_name_claims_nothing(own: object) -> None:
    assert claimed_recipe({"recipe": own}) is None and claimed_data({"recipe": own}) is None
