"""Turn a mapping that knows its lines into a Settings object, with every mismatch reported at its line."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vitpipe.pipeline.spec.places import models_in
from vitpipe.pipeline.spec.text.problems import Mark, Problems, shown, unknown
from vitpipe.pipeline.spec.text.yaml_source import Value, plain
from vitpipe.stages.settings import Settings

Steps = tuple[str | int, ...]


def settings(value: Value, cls: type[Settings], path: str, problems: Problems) -> Settings | None:
    """Validate strictly (a quoted number is no number, `true` is not 1); None once problems are reported."""
    if not isinstance(value.data, Mapping):
        problems.add(value.at, path, f"must be a mapping of fields, not {shown(plain(value))}")
        return None
    try:
        return cls.model_validate_json(json.dumps(plain(value)), strict=True)
    except ValidationError as error:
        for details in _worth_telling(error.errors(include_url=False), value):
            steps = _steps(details, value)
            place, words = _explain(details, steps, value, cls)
            problems.add(place, _dotted(path, steps), words)
        return None


def _worth_telling(errors: list[ErrorDetails], value: Value) -> list[ErrorDetails]:
    """Keep, of a union's alternatives, those that the value comes nearest to: a mapping was not meant as a number."""
    kept: list[ErrorDetails] = []
    deep = {_steps(error, value) for error in errors}
    seen: dict[Steps, ErrorDetails] = {}
    for error in errors:
        steps = _steps(error, value)
        chosen_branch = len(error["loc"]) > len(steps)
        if chosen_branch and any(len(other) > len(steps) and other[: len(steps)] == steps for other in deep):
            continue
        if steps in seen and chosen_branch and error["type"] != "extra_forbidden":
            first = seen[steps]
            if _words(error) not in _words(first):
                first["msg"] = f"{_words(first)}, or {_words(error).removeprefix('should be ')}"
                first["type"] = "joined"
            continue
        seen[steps] = error
        kept.append(error)
    return kept


def _steps(error: ErrorDetails, value: Value) -> Steps:
    """Find where a user would look: pydantic's location without names of alternatives, with the missing field."""
    steps: list[str | int] = []
    here: Value | None = value
    for step in error["loc"]:
        inside = _inside(here, step)
        if inside is not None:
            steps.append(step)
            here = inside
    return (*steps, error["loc"][-1]) if error["type"] == "missing" else tuple(steps)


def _explain(error: ErrorDetails, steps: Steps, value: Value, cls: type[Settings]) -> tuple[Mark, str]:
    here = _walk(value, steps)
    parent = _walk(value, steps[:-1]) or value
    if error["type"] == "missing":
        return parent.at, "field is missing" if isinstance(steps[-1], str) else "a value is missing here"
    if error["type"] == "extra_forbidden":
        known = _fields_at(cls, error["loc"][:-1])
        return (here or parent).at, unknown("key", str(steps[-1]), known)
    given = plain(here) if here else None
    context = error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        what, tags = str(context["discriminator"]).strip("'()"), _listed(context["expected_tags"])
        mark = (_walk(value, (*steps, "kind")) or here or parent).mark
        return mark, unknown(what, str(context["tag"]), tags)
    if error["type"] == "union_tag_not_found":
        return (here or parent).at, f"field {context['discriminator']} is missing: it says which kind this is"
    words = _words(error)
    if error["type"] == "literal_error":
        near = difflib.get_close_matches(str(given), _listed(context["expected"]), n=1, cutoff=0.6)
        words += f", not {shown(given)}" + (f"; did you mean {near[0]!r}?" if near else "")
    elif error["type"] != "value_error":
        words += f", not {shown(given)}"
    return here.mark if here is not None and not isinstance(here.data, Mapping) else (here or parent).at, words


def _words(error: ErrorDetails) -> str:
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    text = re.sub(r"\d{20,}", lambda digits: f"{float(digits[0]):g}", text)  # 1e30 is written out
    return text.replace("a valid array", "a list").replace("a valid tuple", "a list").replace("an object", "a mapping")


def _listed(names: str) -> list[str]:
    """Split pydantic's `'a', 'b' or 'c'` into names."""
    return [name.strip().strip("'") for name in names.replace(" or ", ", ").split(",")]


def _fields_at(cls: type[Settings], loc: Iterable[str | int]) -> list[str]:
    """List the field names that are known where `loc` points."""
    models: list[type[Settings]] = [cls]
    for step in loc:
        fields = {field.alias or name: field for model in models for name, field in model.model_fields.items()}
        if step in fields:
            models = list(models_in(fields[str(step)]))
        else:  # an alternative, by its class name or its tag
            models = [model for model in models if step in (model.__name__, *_tags(model))] or models
    return list(dict.fromkeys(field.alias or name for model in models for name, field in model.model_fields.items()))


def _tags(model: type[Settings]) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()


def _inside(value: Value | None, step: str | int) -> Value | None:
    if value is None:
        return None
    if isinstance(value.data, Mapping):
        return value.data.get(str(step)) if isinstance(step, str) else None
    if isinstance(value.data, tuple) and isinstance(step, int) and 0 <= step < len(value.data):
        return value.data[step]
    return None


def _walk(value: Value, steps: Steps) -> Value | None:
    here: Value | None = value
    for step in steps:
        here = _inside(here, step)
    return here


def _dotted(path: str, steps: Steps) -> str:
    return path + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
