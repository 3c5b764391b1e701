"""The classes that a label member of a sample names: a number, a name, or a field of JSON. No torch."""

import json
from dataclasses import dataclass
from typing import Any

from vitpipe.stages.ingest.sources.class_names import Label, class_label, class_name, is_number
from vitpipe.stages.ingest.sources.text_file import decoded

JSON_FIELDS = ("labels", "label", "cls")
"""Where a json member is looked at when the config names no field."""


@dataclass(frozen=True)
class MemberLabels:
    """Numbers or names of classes, or the reason why there are none."""

    labels: tuple[Label, ...] = ()
    several: bool = False
    """Whether it may be more than one: a list."""
    fault: str = ""
    is_word: bool = False
    """Whether it is a name where most have numbers."""


def member_labels(suffix: str, data: bytes, field: str | None) -> MemberLabels:
    """Read a label member by its extension: `json` a field, `cls` a number or a name, any other a name."""
    try:
        text = decoded(data)
        last = suffix.rpartition(".")[2]
        if last == "json":
            return _of_json(json.loads(text), field)
        name = class_name(text)
        if last == "cls" and is_number(name):
            return MemberLabels((int(name),))
        return MemberLabels((name,), is_word=last == "cls")
    except UnicodeDecodeError:
        return MemberLabels(fault=f"its .{suffix} is not UTF-8")
    except json.JSONDecodeError as error:
        return MemberLabels(fault=f"its .{suffix} is not JSON: {error}")
    except ValueError as error:
        return MemberLabels(fault=f"its .{suffix} has {error}")


def _of_json(content: Any, field: str | None) -> MemberLabels:
    """ValueError in words when it names no class."""
    if isinstance(content, dict):
        own, fields = content, (field,) if field else JSON_FIELDS
        present = [found for name in fields for found in _field(own, name)]
        if not present:
            has = ", ".join(map(str, own)) or "none"
            raise ValueError(f"no field {' or '.join(fields)}; its fields are {has}")
        content = present[0]
    if not isinstance(content, list):
        return MemberLabels((class_label(content),))
    if not content:
        raise ValueError("no label: []")
    return MemberLabels(tuple(dict.fromkeys(class_label(label) for label in content)), several=True)


def _field(content: dict[str, Any], name: str) -> list[Any]:
    """What a field has, as it stands or as `outer.inner`; nothing where it is missing."""
    if name in content:
        return [content[name]]
    outer, _, inner = name.partition(".")
    within = content.get(outer)
    return _field(within, inner) if inner and isinstance(within, dict) else []
