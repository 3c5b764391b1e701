"""Our own format: tensors by our names, `model.json` with all settings beside them. No library is asked for it."""

from collections.abc import Collection, Mapping
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.described import Described, ordered_names
from vitpipe.stages.convert.formats.timm import LANDMARKS, SIGNS
from vitpipe.stages.convert.links import Link, same
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.images.classes import LABELS
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import PREPARATION, read_preparation
from vitpipe.stages.vit.settings_file import SCHEMA, SETTINGS, TENSORS, settings_json
from vitpipe.stages.vit.shapes import parameter_shapes


def _links(settings: ModelSettings) -> list[Link]:
    return [same(name, name) for name in parameter_shapes(settings)]


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    return common.Named("native", arrays) if SETTINGS in beside and not SIGNS.isdisjoint(arrays.shapes) else None


def _describe(content: Mapping[str, Any], asked: str) -> Described | None:
    if SETTINGS not in content:
        return None
    model = content[SETTINGS]
    if model["schema"] > SCHEMA:
        found = (
            f"its model.json has schema {model['schema']}, written by a newer vitpipe; this one reads up to {SCHEMA}"
        )
        raise UsageError("read native weights", found, "update vitpipe")
    labels, first = ordered_names(content.get(LABELS, {}), LABELS, asked)
    way = read_preparation(content[PREPARATION], PREPARATION) if PREPARATION in content else None
    return Described(
        labels=labels,
        first=first,
        sigmoid=content.get(LABELS, {}).get("objective") == "sigmoid",
        model=model["model"],
        preparation=lambda image_px: (way, ""),
    )


FORMAT = common.WeightsFormat(
    name="native",
    file=TENSORS,
    contents=_links,
    limits=lambda settings: [],
    unsaid=lambda settings: None,
    header=lambda about: {"format": "pt"},
    companions=lambda about: {SETTINGS: settings_json(about.settings)},
    pixels=common.HALF,
    consumer=None,
    reading=common.Reading(
        claim=_claim,
        links=_links,
        landmarks=LANDMARKS,
        gelu="erf",
        norm_eps=1e-6,
        untabled=(),
        is_pixels_certain=True,
        companions=(SETTINGS, LABELS, PREPARATION),
        describe=_describe,
    ),
)
