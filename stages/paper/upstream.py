"""Recipes of the authors' later code and papers as rows of expectations, read from `upstream.json`.

AugReg (How to train your ViT?), the better plain ViT; and how MAE, BEiT and DeiT III fine-tune. A row names for each
field the file that says it. As `recipes.py`, it knows no config class.
"""

import difflib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.paper.recipes import Expected, RecipeRow, full_name, size


def known_recipe(name: str) -> str | None:
    """Find a recipe of that name, or None. UsageError for a name that is nearly one, with those that there are."""
    if name in upstream():
        return name
    if near := difflib.get_close_matches(name, upstream(), n=1):
        found = f"vars.recipe is {name!r}; did you mean {near[0]!r}?"
        raise UsageError("compare with a recipe", found, f"name one of {', '.join(upstream())}")
    return None


def recipe_data(recipe: str) -> str:
    """Name the data set of the paper that a recipe pretrains on."""
    return str(upstream()[recipe]["data"])


def pretraining_row(recipe: str, variant: str | None) -> RecipeRow | None:
    """Make the row of a variant; one that the recipe does not have differs in its name, and in nothing particular.

    None where the recipe is of a fine-tuning alone.
    """
    facts = upstream()[recipe]
    if "models" not in facts:
        return None
    own = facts["models"].get(variant)
    particular = own if own is not None else {"model.variant": [sorted(facts["models"]), facts["title"]]}
    named = f"{full_name(variant)} by {facts['title']}" if variant and own is not None else facts["title"]
    return RecipeRow(named, facts["data"], size(facts["data"])[0], _expected(facts["all"] | particular))


def finetuning_row(recipe: str, variant: str | None) -> RecipeRow | None:
    """Make the row of a variant's fine-tuning on ImageNet; None where the recipe has none."""
    facts = upstream()[recipe]
    if "finetune" not in facts:
        return None
    own = facts["finetune_models"].get(variant, {})
    return RecipeRow(f"{facts['title']}, fine-tuned on ImageNet", "imagenet", None, _expected(facts["finetune"] | own))


def _expected(fields: Mapping[str, Sequence[Any]]) -> tuple[Expected, ...]:
    return tuple(Expected(field, tuple(wanted), where, stated=True) for field, (wanted, where) in fields.items())


@functools.cache
def upstream() -> dict[str, Any]:
    """Read all of `upstream.json`, once."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("upstream.json").read_text(encoding="utf-8"))
    return content
