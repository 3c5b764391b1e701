"""The paper's recipes as rows of expectations, read from `recipes.json`: Table 3, Table 4 and section B.1.

A row says for each field what the paper states and where; where it is silent, what we assume and on whose word.
Knows no config class: fields are dotted names, values plain.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitpipe.stages.paper.tables import tables, title, vtab_task

NEAREST_FIRST = ("ImageNet-21k", "ImageNet", "JFT-300M")
"""Data sets by preference: among rows with equally many deviations, the first of these is the nearest."""

_ANY_DATA = "what all data sets have in common (Table 4)"


@dataclass(frozen=True)
class Expected:
    """One field of a recipe."""

    field: str
    wanted: tuple[Any, ...]
    """Values of which each is right."""
    where: str
    """Table or section of the paper; where it says nothing, the source of the assumption."""
    stated: bool
    """Whether the paper says so."""


@dataclass(frozen=True)
class RecipeRow:
    """One recipe of the paper."""

    title: str
    """`ViT-L/16 on ImageNet-21k (Table 3)`."""
    data: str
    """Name of the data set; empty where the row is for none in particular."""
    images: int | None
    """Images of that data set, which turn epochs into steps."""
    expected: tuple[Expected, ...]
    assumed: bool = False
    """Whether the paper has no such row, so that what is particular to it is taken from the nearest model."""


def dataset(name: str) -> str | None:
    """Find the paper's pretraining data set of that name, or None."""
    wanted = name.lower().replace("_", "-")
    known: dict[str, Any] = recipes()["datasets"]
    return next((one for one, facts in known.items() if wanted == one.lower() or wanted in facts["aliases"]), None)


def size(data: str) -> tuple[int, int]:
    """Images and classes of one of the paper's pretraining data sets."""
    facts = recipes()["datasets"][data]
    return facts["images"], facts["classes"]


def variant_of(sizes: Mapping[str, Any]) -> str | None:
    """Name the encoder that has these numbers in Table 1, or None."""
    for letter, known in recipes()["table1"].items():
        if all(sizes.get(name) == number for name, number in known.items()):
            name = f"{letter}/{sizes.get('patch_px')}"
            return name if _own(name) else None
    return None


def full_name(variant: str) -> str:
    """A variant as the paper writes it: `ViT-L/16`, `R50+ViT-B/16`, `R152x2`."""
    return variant.replace("+", "+ViT-") if variant.startswith("R") else f"ViT-{variant}"


def pretraining_rows(variant: str | None, data: str | None, masked: bool) -> list[RecipeRow]:
    """List the rows that a pretraining may follow: its own on `data`, or the variant's on each data set without one.

    `masked` chooses section B.1.2. A variant that the paper does not have gets the row of its nearest model, whose
    particular values are then assumptions.
    """
    if masked:
        return [_masked_row(variant)]
    wanted = [data] if data else list(NEAREST_FIRST)
    found = [_row(variant, each) for each in wanted]
    exact = [row for row in found if not row.assumed]
    return exact or found


def finetuning_row(benchmark: str | None, variant: str | None, averaged: bool) -> RecipeRow:
    """Make the row of a fine-tuning from Table 4 and section B.1.1; `averaged` adds Table 2's settings for ImageNet.

    Without a benchmark of Table 4 it has only what holds for all of them. A task of VTAB has VTAB's row, and its
    exceptions.
    """
    facts = recipes()["finetune"]
    stated, assumed = dict(facts["stated"]), dict(facts["assumed"])
    if benchmark:
        in_table = "vtab" if vtab_task(benchmark) else benchmark
        assumed |= facts["benchmarks"].get(in_table, {})
        vtab = facts["vtab"]
        stated |= {field: vtab[field] for field in ("flip", "crop") if benchmark in vtab[f"without_{field}"]}
        row = tables()["table4"]["rows"][in_table]
        stated["total"] = [f"{row['steps']} steps", "Table 4"]
        stated["peak_lr"] = [row["peak_lr"], "Table 4"]
        stated["dev"] = [row["dev"], "B.1.1"]
    if variant in facts["dropout_of"]:
        assumed["dropout"] = [facts["dropout_of"][variant], assumed["dropout"][1]]
    second = {}
    if benchmark == "imagenet" and averaged:
        by_variant = facts["table2"]["image_px"][0]
        sides = [by_variant[variant]] if variant in by_variant else list(by_variant.values())
        second = {
            "ema": _entry("ema", facts["table2"]["ema"]),
            "image_px": Expected("image_px", tuple(sides), facts["table2"]["image_px"][1], True),
        }
    named = f"{title(benchmark)} (Table 4, section B.1.1)" if benchmark else _ANY_DATA
    return RecipeRow(named, benchmark or "", None, _merged(assumed, stated, second))


@functools.cache
def recipes() -> dict[str, Any]:
    """Read all of `recipes.json`, once."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("recipes.json").read_text(encoding="utf-8"))
    return content


def _own(variant: str | None, data: str | None = None) -> dict[str, Any] | None:
    """The row of Table 3 that names the variant."""
    for row in recipes()["table3"]:
        if variant in row["models"] and data in (None, row["data"]):
            return dict(row)
    return None


def _row(variant: str | None, data: str) -> RecipeRow:
    facts = recipes()
    own = _own(variant, data)
    nearest: str = facts["counterparts"].get(variant, "B/16")
    nearest = nearest if _own(nearest, data) else "B/16"
    row = own or _own(nearest, data)
    assert row is not None, f"every data set has a row of B/16: {data}"
    family = _family(variant, row)
    where = row.get("section", "Table 3") if own else f"no row in Table 3; that of {full_name(nearest)}"
    particular = {
        "total": Expected("total", tuple(f"{epochs} epochs" for epochs in row["epochs"]), where, bool(own)),
        "optimizer.peak_lr": Expected("optimizer.peak_lr", (row["peak_lr"],), where, bool(own)),
        "schedule.kind": Expected("schedule.kind", (row["decay"],), where, bool(own)),
        "optimizer.weight_decay": Expected("optimizer.weight_decay", (row["weight_decay"],), where, bool(own)),
        "model.dropout": Expected("model.dropout", (row["dropout"],), where, bool(own)),
    }
    stated = {**facts["pretrain"]["all"], **facts["pretrain"].get(data, {})}
    assumed = {**facts["assumed"]["all"], **facts["assumed"][data]}
    if family != "resnet":
        stated |= facts["pretrain"]["vit"] | facts["pretrain"]["softmax or sigmoid"]
        assumed |= facts["assumed"]["vit"]
    named = f"{full_name(variant or 'B/16')} on {data} ({'Table 3' if own else 'no row in Table 3'})"
    expected = _merged(assumed, stated, {"model.variant": _variant(variant), **particular})
    return RecipeRow(named, data, facts["datasets"][data]["images"], expected, assumed=not own)


def _masked_row(variant: str | None) -> RecipeRow:
    facts = recipes()
    row = facts["masked_patch"]
    own = variant in row["models"]
    stated = {**facts["pretrain"]["all"], **facts["pretrain"]["vit"], **row["stated"]}
    assumed = {**facts["assumed"]["all"], **facts["assumed"]["vit"], **row["assumed"]}
    wanted = {"model.variant": Expected("model.variant", tuple(row["models"]), row["section"], True)}
    named = f"masked patch prediction with {full_name(row['models'][0])} ({row['section']})"
    images = facts["datasets"][row["data"]]["images"]
    return RecipeRow(named, row["data"], images, _merged(assumed, stated, wanted), not own)


def autoencoder_row(variant: str | None) -> RecipeRow:
    """Make the row of a masked autoencoder, which is He et al.'s: their Table 8, and where it is silent their code."""
    facts = recipes()
    row, models = facts["mae"], tuple(facts["mae"]["models"])
    wanted = {
        "model.variant": Expected("model.variant", models, "He et al. 2022, Table 3", True),
        "total": Expected("total", tuple(row["epochs"]), "He et al. 2022, section 4: 1600, and 800 in ablations", True),
    }
    own = variant if variant in models and variant else models[0]
    named = f"masked autoencoder {full_name(own)} (He et al. 2022, Table 8)"
    images = facts["datasets"][row["data"]]["images"]
    return RecipeRow(named, row["data"], images, _merged(row["assumed"], row["stated"], wanted), variant not in models)


def _merged(
    assumed: Mapping[str, Sequence[Any]], stated: Mapping[str, Sequence[Any]], more: Mapping[str, Expected]
) -> tuple[Expected, ...]:
    """One expectation a field; what is stated replaces what is assumed."""
    found = {field: _entry(field, pair, stated=False) for field, pair in assumed.items()}
    found |= {field: _entry(field, pair) for field, pair in stated.items()}
    return tuple({**more, **found, **more}.values())


def _entry(field: str, pair: Sequence[Any], stated: bool = True) -> Expected:
    return Expected(field, (pair[0],), pair[1], stated)


def _variant(variant: str | None) -> Expected:
    if variant and (_own(variant) or variant in recipes()["counterparts"]):
        where = "Table 1" if "R" not in variant else "4.1"
        where = "Figure 4: ViT-b, which halves the widths of ViT-B" if variant == "S/32" else where
        return Expected("model.variant", (variant,), where, True)
    return Expected("model.variant", ("one of its own models",), "Table 1 and 4.1", True)


def _family(variant: str | None, row: Mapping[str, Any]) -> str:
    if variant and variant.startswith("R"):
        return "hybrid" if "+" in variant else "resnet"
    return str(row["family"])
