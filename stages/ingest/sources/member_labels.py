"""The classes that a label member of a sample names: a number, a name, or a field of JSON. No torch."""

import json
from dataclasses import dataclass
from typing import Any

from vitpipe.stages.ingest.sources.class_names import Label, class_label, class_name, class_number

JSON_FIELDS = ("labels", "label", "cls")
"""Where a json member is looked at when the config names no field."""


@dataclass(frozen=True)
class MemberLabels:
    """Numbers or names of classes, or the reason why there are none."""

    labels: tuple[Label, ...] = ()
    several: bool = False
    """Whether it may be more than one: a list."""
    fault: str = ""


def member_labels(suffix: str, data: bytes, field: str | None) -> MemberLabels:
    """Read a label member by its extension: `json` a field, `cls` a number, any other a name."""
    try:
        text = data.decode("utf-8-sig")
        last = suffix.rpartition(".")[2]
        if last == "json":
            return _of_json(json.loads(text), field)
        return MemberLabels(((class_number if last == "cls" else class_name)(text.strip()),))
    except UnicodeDecodeError:
        return MemberLabels(fault=f"its .{suffix} is not UTF-8")
    except json.JSONDecodeError as error:
        return MemberLabels(fault=f"its .{suffix} is not JSON: {error}")
    except ValueError as error:
        return MemberLabels(fault=f"its .{suffix} has {error}")


def _of_json(content: Any, field: str | None) -> MemberLabels:
    """ValueError in words when it names no class."""
    if isinstance(content, dict):
        fields = (field,) if field else JSON_FIELDS
        present = [name for name in fields if name in content]
        if not present:
            has = ", ".join(map(str, content)) or "none"
            raise ValueError(f"no field {' or '.join(fields)}; its fields are {has}")
        content = content[present[0]]
    if not isinstance(content, list):
        return MemberLabels((class_label(content),))
    if not content:
        raise ValueError("no label: []")
    return MemberLabels(tuple(dict.fromkeys(class_label(label) for label in content)), several=True)
