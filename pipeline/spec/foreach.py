"""The whole fan-out language: one node with `foreach` becomes siblings, one for each combination of values."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vitpipe.pipeline.spec.text.problems import Problems, shown, unknown
from vitpipe.pipeline.spec.text.references import Lookup, field_of, fill, word
from vitpipe.pipeline.spec.text.yaml_source import Value
from vitpipe.pipeline.spec.top_level import NAME, Written

MAX_SIBLINGS = 1000
MAX_EXPANDED = 200_000
"""Number of values in all siblings of one node together."""
_ATTEMPT = re.compile(r"a\d+")


@dataclass(frozen=True)
class Sibling:
    """A node as it will run; its id is the node's name alone where there is no `foreach`."""

    id: str
    keys: Mapping[str, str]
    """`foreach` key -> the slug of this sibling's value."""
    written: Written
    needs: Value
    config: Value
    resources: Value


def expand(node: Written, problems: Problems) -> list[Sibling]:
    """Make the siblings of a node in the order written, the last key changing fastest."""
    if node.foreach is None:
        return [Sibling(node.name, {}, node, node.needs, node.config, node.resources)]
    path = f"{node.path}.foreach"
    keys = _read_keys(node.foreach, path, problems)
    if not keys:
        return []
    total = 1
    for values in keys.values():
        total *= len(values)
    size = total * (node.needs.size + node.config.size + node.resources.size)
    if total > MAX_SIBLINGS or size > MAX_EXPANDED:
        words = f"makes {total} siblings; at most {MAX_SIBLINGS} of moderate size are accepted"
        problems.add(node.foreach.at, path, words)
        return []
    combinations = [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())]
    siblings = [_sibling(node, each, problems) for each in combinations]
    _check_ids(siblings, node, problems)
    return siblings


def _read_keys(foreach: Value, path: str, problems: Problems) -> dict[str, list[tuple[str, Value]]]:
    """Read key -> its values, each with its slug; empty once something is wrong."""
    if not isinstance(foreach.data, Mapping) or not foreach.data:
        problems.add(foreach.at, path, "must map at least one key to a list of values")
        return {}
    keys: dict[str, list[tuple[str, Value]]] = {}
    sound = True
    for key, values in foreach.data.items():
        if not isinstance(values.data, tuple) or not values.data:
            problems.add(values.at, f"{path}.{key}", "must be a list of at least one value")
            sound = False
            continue
        slugs = [_slug(value, f"{path}.{key}[{index}]", problems) for index, value in enumerate(values.data)]
        sound = sound and all(slugs)
        keys[key] = list(zip(slugs, values.data, strict=True))
    return keys if sound else {}


def _slug(value: Value, path: str, problems: Problems) -> str:
    named: Value | None = value
    if isinstance(value.data, Mapping):
        named = value.data.get("id")
    if named is None or isinstance(named.data, (Mapping, tuple)):
        problems.add(value.at, path, "must be a single value, or a mapping with an `id`")
        return ""
    data = named.data
    text = json.dumps(data) if isinstance(data, float) else word(data)
    slug = re.sub(r"[^a-z0-9]", "-", text.lower()).strip("-")
    if not slug:
        problems.add(named.at, path, f"{shown(text)} leaves nothing for an id; give a mapping with an `id`")
    return slug


def _sibling(node: Written, each: Mapping[str, tuple[str, Value]], problems: Problems) -> Sibling:
    slugs = {key: slug for key, (slug, _) in each.items()}
    lookup = _each_lookup({key: value for key, (_, value) in each.items()}, problems)

    def filled(part: Value, name: str) -> Value:
        return fill(part, f"{node.path}.{name}", lookup, problems)

    return Sibling(
        id=f"{node.name}/{'--'.join(slugs.values())}",
        keys=slugs,
        written=node,
        needs=filled(node.needs, "needs"),
        config=filled(node.config, "config"),
        resources=filled(node.resources, "resources"),
    )


def _each_lookup(values: Mapping[str, Value], problems: Problems) -> Lookup:
    def lookup(inside: str, user: Value, path: str) -> Value | None:
        kind, _, rest = inside.partition(".")
        if kind != "each":
            raise KeyError(inside)
        key, *fields = rest.split(".")
        if key not in values:
            problems.add(user.at, path, unknown("foreach key", key, values))
            return None
        value = values[key]
        if not fields and isinstance(value.data, Mapping):
            return replace(value, data={name: part for name, part in value.data.items() if name != "id"})
        return field_of(value, f"each.{key}", fields, user, path, problems)

    return lookup


def _check_ids(siblings: list[Sibling], node: Written, problems: Problems) -> None:
    assert node.foreach is not None
    seen: set[str] = set()
    for sibling in siblings:
        own, wrong = sibling.id.partition("/")[2], ""
        if own in seen:
            wrong = f"two siblings have the id {own!r}"
        elif not NAME.fullmatch(own):
            wrong = f"the id {shown(own, limit=80)} has {len(own)} characters, 63 at most"
        elif _ATTEMPT.fullmatch(own):
            wrong = f"the id {own!r} is reserved (`a` and digits name attempts)"
        if wrong:
            advice = "give the values explicit `id`s: {id: name, ...}"
            problems.add(node.foreach.at, f"{node.path}.foreach", f"{wrong}; {advice}")
        seen.add(own)
