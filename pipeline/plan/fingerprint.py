"""The identity of a result: a hash of the canonical JSON of everything that decides it, and how two of them differ.

Fields equal to their default are left out, so that a field added later drifts nothing. Knows no store.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from vitpipe.infra.storage.hub_names import without_revisions
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.pipeline.spec.places import is_local, models_in, place_paths
from vitpipe.stages import seal
from vitpipe.stages.settings import Place, Settings


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a node's result."""

    sha256: str
    recipe: Mapping[str, Any]
    """What was hashed: stage, version, config without defaults, and the fingerprints of the inputs."""


def fingerprints(graph: Graph, external: Mapping[str, str]) -> dict[str, Fingerprint]:
    """Take the fingerprint of every node. `external` has those of other runs' artifacts by URI; KeyError without."""
    known = dict(external)
    found: dict[str, Fingerprint] = {}
    for id, node in graph.nodes.items():
        found[id] = fingerprint(node, known)
        known[id] = found[id].sha256
    return found


def fingerprint(node: Node, known: Mapping[str, str]) -> Fingerprint:
    """Take the fingerprint of one node, given those of everything that it needs."""
    recipe = {
        "stage": node.stage.name,
        "version": node.stage.version,
        "config": canonical(node.config),
        "inputs": {name: [known[ref] for ref in refs] for name, refs in sorted(node.needs.items()) if refs},
    }
    return Fingerprint(hashlib.sha256(encode(recipe)).hexdigest(), recipe)


def encode(recipe: Mapping[str, Any]) -> bytes:
    """Write canonical JSON: sorted keys, no spaces, no infinities."""
    return seal.canonical(recipe, allow_nan=False)


def canonical(config: Settings) -> dict[str, Any]:
    """Keep the fields that differ from their defaults, and every `kind` that says which alternative was chosen.

    Local places of source data are left out: a folder may move. Of a list of them the file names stay. A revision on
    the Hub is left out: which commit it meant is recorded, and compared when the source is looked at.
    """
    fields: dict[str, Any] = _without_defaults(config, config.model_dump(mode="json", by_alias=True))
    for path, mark in place_paths(type(config)).items():
        _drop_local(fields, path, mark)
    return fields


def _without_defaults(value: Any, dumped: Any) -> Any:
    """Drop defaults from `dumped`, the JSON of `value`, which is typed and knows its defaults."""
    if isinstance(value, Settings):
        kept = {}
        for name, field in type(value).model_fields.items():
            key = field.alias or name
            if key not in dumped:  # left out by the settings themselves, at its default
                continue
            part = _without_defaults(getattr(value, name), dumped[key])
            if (name == "kind" and _says_which(field.annotation)) or not _same(part, _default(type(value), name)):
                kept[key] = part
        return kept
    if isinstance(value, (list, tuple)) and isinstance(dumped, list):
        return [_without_defaults(one, json) for one, json in zip(value, dumped, strict=True)]
    if isinstance(value, Mapping) and isinstance(dumped, dict):
        return {key: _without_defaults(value[key], json) for key, json in dumped.items()}
    # 1 and 1.0 are the same number; true is no number
    return int(dumped) if isinstance(dumped, float) and dumped.is_integer() else dumped


def _says_which(annotation: Any) -> bool:
    """Whether a field has one possible word, which tells alternatives of a union apart: its default says something."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


MISSING = object()
"""Stands for the value of a field that a recipe does not have."""


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal as JSON: in Python true equals 1."""
    if one is MISSING or other is MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _default(settings: type[Settings], name: str) -> Any:
    field = settings.model_fields[name]
    if field.is_required():
        return MISSING
    default = field.get_default(call_default_factory=True)
    only = settings.model_construct(**{name: default})
    dumped = only.model_dump(mode="json", include={name}, warnings=False)
    return _without_defaults(default, dumped.get(name, default))  # left out where the settings leave out defaults


def _drop_local(fields: dict[str, Any], path: tuple[str, ...], mark: Place) -> None:
    *parents, last = path
    inner: Any = fields
    for name in parents:
        inner = inner.get(name) if isinstance(inner, dict) else None
    given = inner.get(last) if isinstance(inner, dict) else None
    if isinstance(given, str) and given not in mark.words and is_local(given):
        del inner[last]
    elif isinstance(given, str):
        inner[last] = without_revisions(given)
    if isinstance(given, list):  # patterns of files: the folder may move, which files are meant is the recipe
        inner[last] = [_file_name(one) if is_local(one) else without_revisions(one) for one in given]


def _file_name(place: str) -> str:
    """Keep the last part of a path when it names files; an empty text for a folder."""
    name = os.path.basename(place)
    return name if "." in name else ""


@dataclass(frozen=True)
class Change:
    """One field in which two recipes differ; a side that has no such field holds `MISSING`."""

    path: tuple[str, ...]
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} {field_text(self.old, self.path)} -> {field_text(self.new, self.path)}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List what differs between two recipes, one line a field: `config.optimizer.peak_lr 0.001 -> 0.003`."""
    return [str(change) for change in changes(old, new)]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Find the fields in which two recipes differ, those of the config first.

    A field that only one of them states is given with its default on the other side.
    """
    if old.get("stage") != new.get("stage"):
        return [Change(("stage",), old.get("stage"), new.get("stage"))]
    stage = CATALOG.get(str(new.get("stage")))
    rows = _changes((), old, new, (old, new), stage.config_class() if stage else None)
    return sorted((Change(*row) for row in rows), key=lambda change: change.path[0] != "config")


def field_text(value: Any, path: tuple[str, ...] = ()) -> str:
    """Write the value that a field has in a recipe; of the fingerprints of inputs the first digits."""
    if value is MISSING:
        return "(not given)"
    if path[:1] == ("inputs",) and isinstance(value, list):  # fingerprints: the first digits tell them apart
        return ",".join(str(one)[:12] for one in value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


Path = tuple[str, ...]


def _changes(
    path: Path, old: Any, new: Any, recipes: tuple[Any, Any], config: type[Settings] | None
) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the leaves that differ; a list is one leaf. What one side leaves out is its default."""
    if config and path[:1] == ("config",):
        old, new = (
            _default_at(config, path[1:], recipe.get("config")) if side is MISSING else side
            for side, recipe in zip((old, new), recipes, strict=True)
        )
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _changes((*path, key), old.get(key, MISSING), new.get(key, MISSING), recipes, config)
    elif not _same(old, new):
        yield path, old, new


def _default_at(settings: type[Settings], path: Path, config: Any) -> Any:
    """The default at a path of a config, of the alternative that it chose; `MISSING` where there is none."""
    names = {field.alias or name: name for name, field in settings.model_fields.items()}
    if not path or path[0] not in names:
        return MISSING
    if len(path) == 1:
        return _default(settings, names[path[0]])
    inner, part = set(models_in(settings.model_fields[names[path[0]]])), (config or {}).get(path[0])
    kind = part.get("kind") if isinstance(part, Mapping) else None
    chosen = [one for one in inner if len(inner) == 1 or _is_of(one, kind)]
    return _default_at(chosen[0], path[1:], part) if len(chosen) == 1 else MISSING


def _is_of(alternative: type[Settings], kind: Any) -> bool:
    """Whether an alternative of a union is what a section of this `kind` means; None is one that names no kind."""
    field = alternative.model_fields.get("kind")
    return field is not None and (kind in get_args(field.annotation) or (kind is None and not field.is_required()))
