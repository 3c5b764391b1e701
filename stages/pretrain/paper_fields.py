"""A pretraining's recipe as fields to compare with the paper's Table 3 and section B.1. No torch."""

from dataclasses import replace
from typing import Any

from vitpipe.stages.paper.recipe_comparison import RecipeComparison, compare
from vitpipe.stages.paper.recipes import RecipeRow, autoencoder_row, pretraining_rows, variant_of
from vitpipe.stages.paper.upstream import pretraining_row
from vitpipe.stages.pretrain.config import PretrainConfig
from vitpipe.stages.training.optim.schedule import in_steps

DECAYS = "kernels alone, by lr x weight_decay"
"""What `optimizer.decays` is by default (`training/optim/torch_optimizer.py`)."""
CROP_MIN_AREA = {"inception": 0.05, "random_resized": 0.08}
"""What `augment.min_area` is when left out."""


def conform(config: PretrainConfig, data: str | None, recipe: str | None = None) -> RecipeComparison:
    """Compare with the variant's row on `data`, a set of the paper; without it, with the row of fewest deviations.

    `recipe` names one of the authors' later ones instead of the paper. A masked autoencoder has a row of its own.
    """
    variant = variant_name(config.model)
    own = pretraining_row(recipe, variant) if recipe is not None else None
    if own is not None:
        rows = [own]
    elif config.objective.kind == "mae":
        rows = [autoencoder_row(variant)]
    else:
        rows = pretraining_rows(variant, data, masked=config.objective.kind == "masked_patch")
    rows = [
        replace(row, expected=tuple(one for one in row.expected if _is_measured(one.field, config))) for row in rows
    ]
    return min(
        (compare(_values(config, row, variant), row, config.batch_images) for row in rows),
        key=lambda one: len(one.deviations),
    )


def _is_measured(field: str, config: PretrainConfig) -> bool:
    """Whether a field of what is measured while training means anything; any other field does."""
    if not field.startswith("evaluate."):
        return True
    return config.evaluate is not None and (field.count(".") == 1 or "fewshot" in config.evaluate.model_fields_set)


def variant_name(model: Any) -> str | None:
    """A variant's name in the paper, also where it is given by its numbers; None when the paper has none."""
    if isinstance(model.variant, str):
        return model.variant
    return variant_of(model.variant.model_dump())


def _values(config: PretrainConfig, row: RecipeRow, variant: str | None) -> dict[str, Any]:
    """The recipe by dotted names, with what a default stands for in its place."""
    values = dict(_leaves("", config.model_dump(mode="json")))
    objective, optimizer, augment = config.objective, config.optimizer, config.augment
    values["total"] = config.total
    values["schedule.warmup"] = _warmup(config, row)
    values["model.variant"] = variant or config.model.sizes.model_dump()
    values["model.later_parts"] = config.model.later_parts or None
    values["optimizer.kind"] = "adam" if optimizer.kind == "adamw" else optimizer.kind  # one rule here
    values["optimizer.decays"] = DECAYS if optimizer.decays == "kernels" else "all parameters, by lr x weight_decay"
    values["objective.head_bias"] = objective.initial_head_bias
    values["objective.target"] = objective.patch_target if objective.kind == "masked_patch" else None
    values["augment.min_area"] = augment.min_area or CROP_MIN_AREA.get(augment.crop)
    values["augment.randaugment"] = augment.randaugment and {
        **augment.randaugment.model_dump(include={"kind", "layers", "magnitude"}),
        **augment.randaugment.model_dump(exclude_defaults=True),
    }
    values["augment.mixup"] = augment.model_dump()["mixup"] if augment.mixing.alpha else 0.0
    for place in ("evaluate", "evaluate.fewshot"):
        if values.get(f"{place}.eval_resize") == "area_small":
            values[f"{place}.antialias"] = False  # it averages by itself
        elif values.get(f"{place}.antialias") is None:
            values[f"{place}.antialias"] = augment.antialias
    values["ema"] = config.ema.decay if config.ema else None
    if config.model.resnet is None and config.model.representation == config.model.sizes.width:
        values["model.representation"] = "width"
    return values


def _warmup(config: PretrainConfig, row: RecipeRow) -> Any:
    """The warm-up in steps of the paper's data set."""
    images = row.images or 0
    total_steps = config.total.steps(config.batch_images, images)
    schedule = config.schedule.model_copy(update={"cooldown": None, "kind": "constant"})
    try:
        return in_steps(schedule, total_steps, config.batch_images, images).warmup
    except ValueError:  # longer than the run itself, which `validate` tells
        return config.schedule.warmup


def _leaves(path: str, value: Any) -> Any:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, part)
    else:
        yield path, value
