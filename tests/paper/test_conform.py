"""Each recipe against the paper's: a planted change of any field is found, and nothing else with it."""

from collections.abc import Iterator
from typing import Any

import pytest
from one_field import changed
from pydantic import BaseModel

from vitpipe.pipeline.spec.places import models_in
from vitpipe.stages.finetune.config import FinetuneConfig
from vitpipe.stages.finetune.paper_fields import FIXED
from vitpipe.stages.finetune.paper_fields import conform as conform_finetuning
from vitpipe.stages.finetune.sections import TuningOptimizer
from vitpipe.stages.model_settings import LATER_PARTS
from vitpipe.stages.paper.recipes import autoencoder_row, dataset, finetuning_row, pretraining_rows, recipes
from vitpipe.stages.paper.tables import tables
from vitpipe.stages.pretrain.config import PretrainConfig
from vitpipe.stages.pretrain.paper_fields import conform
from vitpipe.stages.report.results import PAPERS_OPTIMIZER

L16 = {
    "model": {"variant": "L/16", "image_px": 224, "representation": "width", "dropout": 0.1, "gelu": "tanh"},
    "objective": {"kind": "sigmoid", "head_bias": -10},
    "optimizer": {"kind": "adam", "peak_lr": 1e-3, "weight_decay": 0.03},
    "schedule": {"kind": "linear", "warmup": "10k steps"},
    "augment": {"crop": "inception", "antialias": False, "min_area": 0.05},
    "batch_images": 4096,
    "total": "90 epochs",
}
B16_ALONE = {  # on ImageNet alone
    **L16,
    "model": {**L16["model"], "variant": "B/16"},  # type: ignore[dict-item]
    "objective": {"kind": "softmax", "head_bias": 0},
    "optimizer": {"peak_lr": 3e-3, "weight_decay": 0.3},
    "schedule": {"kind": "cosine", "warmup": "10k steps"},
    "total": "300 epochs",
}
STATED = {
    "batch_images": 2048, "total": "60 epochs", "model.image_px": 256, "model.representation": "none",
    "model.pool": "gap", "model.position": "sincos2d", "model.dropout": 0.0, "model.stochastic_depth": 0.1,
    "optimizer.kind": "sgd", "optimizer.peak_lr": 3e-4, "optimizer.betas": [0.9, 0.95],
    "optimizer.weight_decay": 0.1, "schedule.kind": "cosine", "schedule.warmup": "5k steps",
    "schedule.cooldown": "1k steps", "augment.randaugment": {"layers": 2, "magnitude": 10}, "augment.mixup": 0.2,
    "augment.cutmix": 1.0, "ema": {"decay": 0.9999},
}  # fmt: skip
UNSTATED = {
    "model.gelu": "erf", "model.norm_eps": 1e-12, "objective.kind": "softmax", "objective.head_bias": 0.0,
    "objective.label_smoothing": 0.1, "optimizer.clip_norm": None, "schedule.end_lr": 1e-5,
    "augment.crop": "random_resized", "augment.min_area": 0.08, "augment.antialias": True, "augment.flip": False,
    "precision": "fp32", "optimizer.state_dtype": "bf16", "optimizer.decays": "all", "layer_decay": 0.75,
}  # fmt: skip
NOT_COMPARED = {
    "model.classes", "optimizer.momentum", "schedule.timescale", "augment.resize_px", "augment.pad_px", "seed",
    "model.kept_branches", "augment.mixup.alpha", "augment.mixup.pairing", "augment.mixup.per",
    "augment.randaugment.kind", "augment.randaugment.layers", "augment.randaugment.magnitude",
    "augment.randaugment.magnitude_std", "augment.randaugment.increasing", "model.variant.layers",
    "model.variant.width", "model.variant.mlp", "model.variant.heads", "model.variant.patch_px", "ema.decay",
    "evaluate.every", "evaluate.fewshot.shots", "evaluate.fewshot.l2", "evaluate.fewshot.seeds",
    "evaluate.fewshot.strict_shots", "mix", *(f"model.{name}" for name in LATER_PARTS if name != "rope"),
    "model.rope.kind", "model.rope.base", "model.rope.grid", "reduce_dtype",
}  # fmt: skip
"""The shards decide it, another alternative alone has it, no recipe names it, its section stands for it, or it changes
no weight."""


def pretraining(recipe: dict[str, Any], data: str | None = "ImageNet-21k") -> tuple[list[str], list[str]]:
    """Names of the fields that differ, and of those that are not as we assume."""
    found = conform(PretrainConfig.model_validate(recipe), data)
    unlike = [one.field for one in found.findings if one.status == "unstated" and not one.as_assumed]
    return [one.field for one in found.deviations], unlike


@pytest.mark.parametrize(("recipe", "data"), [(L16, "ImageNet-21k"), (B16_ALONE, "ImageNet")])
def test_the_papers_own_recipe_conforms(recipe: dict[str, Any], data: str) -> None:
    assert pretraining(recipe, data) == ([], [])
    assert conform(PretrainConfig.model_validate(recipe), None).row.data == data, "the nearest row is its own"


@pytest.mark.parametrize("field", STATED)
def test_a_planted_deviation_is_found_alone(field: str) -> None:
    assert pretraining(changed(L16, field, STATED[field])) == ([field], [])


@pytest.mark.parametrize("field", UNSTATED)
def test_what_the_paper_leaves_open_is_told_and_deviates_from_nothing(field: str) -> None:
    assert pretraining(changed(L16, field, UNSTATED[field])) == ([], [field])


def test_any_part_that_the_papers_models_do_not_have_deviates() -> None:
    for name, value in {"registers": 4, "layer_scale": 1e-5, "qk_norm": True, "rope": {"kind": "dinov3"}}.items():
        assert pretraining(changed(L16, f"model.{name}", value)) == (["model.later_parts"], [])


def test_clipping_is_stated_for_imagenet_alone() -> None:
    assert pretraining(changed(B16_ALONE, "optimizer.clip_norm", None), "ImageNet") == (["optimizer.clip_norm"], [])


def test_every_field_of_a_recipe_is_compared_or_left_out_for_a_reason() -> None:
    compared = {one.field for row in pretraining_rows("L/16", "ImageNet-21k", False) for one in row.expected}
    masked = {one.field for row in pretraining_rows("B/16", None, True) for one in row.expected}
    hidden = {one.field for one in autoencoder_row("B/16").expected}
    fields = set(leaves(PretrainConfig))
    assert fields - compared - masked - hidden - NOT_COMPARED == set()
    stand_ins = {
        "model.later_parts", "ema", "optimizer.decays", "augment.randaugment", "augment.mixup", "model.variant",
    }  # fmt: skip
    assert compared - fields == stand_ins - fields


def leaves(settings: type[BaseModel], path: str = "") -> Iterator[str]:
    """Dotted names of all fields; a section stands for its own fields."""
    for name, field in settings.model_fields.items():
        inner = list(models_in(field))
        if not inner:
            yield f"{path}{name}"
        for one in inner:
            yield from leaves(one, f"{path}{name}.")


MEASURED = {"every": "1 epochs", "eval_resize": "area_small", "fewshot": {"shots": [5]}}


def test_what_is_measured_while_training_is_compared_where_it_is() -> None:
    """The authors' resizing of held-out images and of few-shots; without a low-pass, as the training images here."""
    assert pretraining(changed(L16, "evaluate", MEASURED)) == ([], [])
    planted = {"eval_resize": "squash", "antialias": True, "fewshot": {"eval_resize": "squash", "antialias": True}}
    assert pretraining({**L16, "evaluate": {**MEASURED, **planted}}) == (
        [],
        ["evaluate.eval_resize", "evaluate.antialias", "evaluate.fewshot.eval_resize", "evaluate.fewshot.antialias"],
    )


def test_lengths_in_other_units_are_the_same_lengths() -> None:
    assert pretraining(changed(L16, "total", "311948 steps")) == ([], [])
    assert pretraining(changed(L16, "total", "31194 steps")) == (["total"], [])
    assert pretraining(changed(L16, "schedule.warmup", "40.96M images")) == ([], [])
    assert pretraining(changed(L16, "total", "30 epochs")) == ([], []), "Table 3 has both"


def test_the_default_warm_up_is_judged_by_what_it_comes_to() -> None:
    """10k steps, but at most a twentieth: too short for 300 epochs of ImageNet, 93.8k steps."""
    assert pretraining(changed(L16, "schedule", {"kind": "linear"})) == ([], [])
    assert pretraining(changed(B16_ALONE, "schedule", {"kind": "cosine"}), "ImageNet") == (["schedule.warmup"], [])


def test_sizes_of_table_1_are_known_by_their_numbers() -> None:
    numbers = {"layers": 24, "width": 1024, "mlp": 4096, "heads": 16, "patch_px": 16}
    assert pretraining(changed(L16, "model.variant", numbers)) == ([], [])
    assert pretraining(changed(L16, "model.variant", {**numbers, "layers": 23})) == (["model.variant"], [])
    assert pretraining(changed(L16, "model.variant", "S/16")) == (["model.variant"], [])


def test_the_row_that_the_paper_does_not_print_is_assumed() -> None:
    """H/14 on ImageNet-21k: Table 5 has its results, no table its recipe."""
    (row,) = pretraining_rows("H/14", "ImageNet-21k", masked=False)
    assert row.assumed and {one.field for one in row.expected if "ViT-L/16" in one.where} == {
        "total", "optimizer.peak_lr", "schedule.kind", "optimizer.weight_decay", "model.dropout"
    }  # fmt: skip
    recipe = changed(L16, "model.variant", "H/14")
    assert pretraining(recipe) == ([], [])
    assert pretraining(changed(recipe, "optimizer.peak_lr", 1e-4)) == ([], ["optimizer.peak_lr"])
    assert pretraining(changed(recipe, "batch_images", 1024)) == (["batch_images"], [])


MASKED = {
    **L16, "total": "1M steps", "objective": {"kind": "masked_patch"},
    "model": {"variant": "B/16", "image_px": 224, "gelu": "tanh"},
    "optimizer": {"peak_lr": 2e-4, "weight_decay": 0.1}, "schedule": {"kind": "cosine", "warmup": "10k steps"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("objective.target", "l2"), ("total", "100k steps"), ("optimizer.peak_lr", 1e-3), ("schedule.kind", "linear"),
     ("batch_images", 2048), ("model.variant", "B/32")],
)  # fmt: skip
def test_masked_patch_prediction_is_held_to_its_own_section(field: str, value: Any) -> None:
    assert pretraining(MASKED) == ([], [])
    assert pretraining(changed(MASKED, field, value)) == ([field], [])
    assert pretraining(changed(MASKED, "model.dropout", 0.1)) == ([], ["model.dropout"])


MAE = {
    "model": {"variant": "L/16", "image_px": 224}, "objective": {"kind": "mae"}, "batch_images": 4096,
    "optimizer": {"peak_lr": 2.4e-3, "betas": [0.9, 0.95], "weight_decay": 0.05, "clip_norm": None},
    "schedule": {"kind": "cosine", "warmup": "40 epochs"}, "total": "1600 epochs",
    "augment": {"crop": "random_resized", "min_area": 0.2},
}  # fmt: skip
HIDDEN = {
    "objective.mask_ratio": 0.6, "objective.decoder.layers": 4, "objective.decoder.width": 256,
    "objective.norm_pixels": False, "optimizer.betas": [0.9, 0.999], "optimizer.weight_decay": 0.1,
    "optimizer.peak_lr": 1.5e-4, "schedule.warmup": "10k steps", "total": "300 epochs", "model.pool": "gap",
    "model.position": "sincos2d", "augment.crop": "inception", "model.variant": "S/16", "batch_images": 1024,
}  # fmt: skip


@pytest.mark.parametrize("field", HIDDEN)
def test_a_masked_autoencoder_is_held_to_its_authors_table(field: str) -> None:
    assert pretraining(MAE) == ([], [])
    assert pretraining(changed(MAE, field, HIDDEN[field])) == ([field], [])
    assert pretraining(changed(MAE, "augment.min_area", 0.08)) == ([], ["augment.min_area"])


def test_table_3_as_printed() -> None:
    """The two columns that vary most, by (model, data)."""
    rows = {(model, row["data"]): row for row in recipes()["table3"] for model in row["models"]}
    printed = {
        ("B/32", "JFT-300M"): 8e-4, ("B/16", "JFT-300M"): 8e-4, ("L/32", "JFT-300M"): 6e-4, ("L/16", "JFT-300M"): 4e-4,
        ("H/14", "JFT-300M"): 3e-4, ("R50x1", "JFT-300M"): 1e-3, ("R101x1", "JFT-300M"): 8e-4,
        ("R152x2", "JFT-300M"): 6e-4, ("R50+B/32", "JFT-300M"): 8e-4, ("R50+L/32", "JFT-300M"): 2e-4,
        ("R50+L/16", "JFT-300M"): 4e-4, ("B/16", "ImageNet-21k"): 1e-3, ("L/32", "ImageNet-21k"): 1e-3,
        ("L/16", "ImageNet"): 3e-3,
    }  # fmt: skip
    assert {key: rows[key]["peak_lr"] for key in printed} == printed
    by_data = {(row["data"], row["weight_decay"], row["dropout"], row["decay"]) for row in recipes()["table3"]}
    assert by_data == {
        ("JFT-300M", 0.1, 0.0, "linear"), ("ImageNet-21k", 0.03, 0.1, "linear"), ("ImageNet", 0.3, 0.1, "cosine")
    }  # fmt: skip


@pytest.mark.parametrize(("name", "found"), [("i21k", "ImageNet-21k"), ("imagenet_1k", "ImageNet"), ("LAION", None)])
def test_data_sets_by_their_usual_names(name: str, found: str | None) -> None:
    assert dataset(name) == found


CIFAR = {
    "batch_images": 512, "total": "10k steps", "peak_lr": [0.03, 0.001, 0.003, 0.01], "image_px": 384,
    "warmup": "500 steps", "dev": 0.02, "crop": "resmall", "crop_px": 448, "antialias": False, "dropout": 0.1,
}  # fmt: skip
TABLE_4 = {
    "batch_images": 128, "total": "500 steps", "peak_lr": [0.03, 0.01, 0.003], "image_px": 224, "dev": 0.1,
    "clip_norm": None, "ema": {"decay": 0.9999}, "seeds": [0], "train_per_class": 100,
    "split": "val", "head_init": "keep", "optimizer": {"kind": "adamw", "weight_decay": 0.05},
}  # fmt: skip
OPEN_IN_TABLE_4 = {
    "warmup": "100 steps", "crop": "resize", "crop_px": 400, "antialias": True, "flip": False, "dropout": 0.0,
    "eval_resize": "resize_crop", "position_resize": "timm", "precision": "fp32", "sweep_seeds": 2,
    "stop_hopeless": 0.25, "layer_decay": 0.75, "end_lr": 1e-6, "augment": {"mixup": 0.8}, "label_smoothing": 0.1,
    "stochastic_depth": 0.1,
}  # fmt: skip


def finetuning(recipe: dict[str, Any], benchmark: str | None = "cifar10") -> tuple[list[str], list[str]]:
    found = conform_finetuning(FinetuneConfig.model_validate(recipe), benchmark, "L/16", 224)
    unlike = [one.field for one in found.findings if one.status == "unstated" and not one.as_assumed]
    return [one.field for one in found.deviations], unlike


def test_table_4_conforms_to_itself() -> None:
    assert finetuning(CIFAR) == ([], [])
    assert finetuning(changed(CIFAR, "image_px", None))[0] == ["image_px"], "the weights' own 224"


@pytest.mark.parametrize("field", TABLE_4)
def test_a_planted_deviation_from_table_4_is_found_alone(field: str) -> None:
    unlike = ["crop_px"] if field == "image_px" else []  # 448 is 8/7 of 384 alone
    assert finetuning(changed(CIFAR, field, TABLE_4[field])) == ([field], unlike)


@pytest.mark.parametrize("field", OPEN_IN_TABLE_4)
def test_what_table_4_leaves_open(field: str) -> None:
    assert finetuning(changed(CIFAR, field, OPEN_IN_TABLE_4[field])) == ([], [field])


def test_every_field_of_a_fine_tuning_is_compared() -> None:
    expected = {one.field for one in finetuning_row("cifar10", None, averaged=False).expected}
    assert set(FinetuneConfig.model_fields) - expected == {"model", "strict_train_per_class"}
    assert expected - set(FinetuneConfig.model_fields) == set(FIXED)
    assert str(TuningOptimizer()) == PAPERS_OPTIMIZER


def test_averaging_on_imagenet_is_table_2s_way() -> None:
    table2 = {**CIFAR, "total": "20k steps", "peak_lr": [0.003, 0.01, 0.03, 0.06], "dev": 0.01, "crop": "inception",
              "crop_px": None, "image_px": 512, "ema": {"decay": 0.9999}}  # fmt: skip
    assert finetuning(table2, "imagenet") == ([], [])
    assert finetuning(changed(table2, "image_px", 384), "imagenet") == (["image_px"], [])
    assert finetuning(changed(table2, "ema", {"decay": 0.99}), "imagenet") == (["ema"], [])


def test_another_data_set_is_held_to_what_all_have_in_common() -> None:
    assert finetuning(changed(CIFAR, "total", "77 steps"), None) == ([], ["crop"])
    assert finetuning(changed(CIFAR, "batch_images", 128), None) == (["batch_images"], ["crop"])


VTAB = {
    "batch_images": 512, "total": "2500 steps", "peak_lr": 0.01, "image_px": 384, "warmup": "500 steps", "dev": 200,
    "crop": "resize", "antialias": False, "dropout": 0.1,
}  # fmt: skip
WITHOUT_FLIP = {"vtab-dsprites-location", "vtab-dsprites-orientation", "vtab-smallnorb-azimuth"}
WITHOUT_CROP = {
    "vtab-clevr-count", "vtab-clevr-distance", "vtab-dmlab", "vtab-dsprites-location", "vtab-kitti-distance"
}  # fmt: skip


@pytest.mark.parametrize("task", tables()["table9"]["tasks"])
def test_vtab_tasks_have_their_own_flips_and_crops(task: str) -> None:
    """Flipping a direction or cropping a position changes the label: BiT's supplement F, whose protocol is followed."""
    recipe = changed(VTAB, "flip", task not in WITHOUT_FLIP)
    recipe["crop"] = "none" if task in WITHOUT_CROP else "resize"
    assert finetuning(recipe, task) == ([], [])
    flipped = finetuning(changed(recipe, "flip", not recipe["flip"]), task)
    assert flipped == ((["flip"], []) if task in WITHOUT_FLIP else ([], ["flip"]))
    cropped = finetuning(changed(recipe, "crop", "inception"), task)
    assert cropped == ((["crop"], []) if task in WITHOUT_CROP else ([], ["crop"]))


@pytest.mark.parametrize(("field", "value"), [("total", "500 steps"), ("peak_lr", [0.01, 0.03]), ("dev", 0.2)])
def test_a_planted_deviation_from_vtabs_row_is_found_alone(field: str, value: Any) -> None:
    assert finetuning(changed(VTAB, field, value), "vtab-svhn") == ([field], [])
    assert finetuning(changed(VTAB, field, value), "vtab") == ([field], [])
