"""The top of a spec as written: which keys there are, and the five parts of each node. Looks into no config."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vitpipe.pipeline.spec.catalog import CATALOG, REUSE, Reuse, Stage
from vitpipe.pipeline.spec.text.problems import Mark, Problems, shown, unknown
from vitpipe.pipeline.spec.text.yaml_source import Value

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
RESERVED_NODES = ("events",)
TOP = ("version", "name", "store", "reuse", "extends", "vars", "nodes")
PARTS = ("stage", "needs", "foreach", "config", "resources")


@dataclass(frozen=True)
class Written:
    """One node of the YAML, before `foreach` expands it."""

    name: str
    mark: Mark
    stage: Stage
    needs: Value
    config: Value
    resources: Value
    foreach: Value | None

    @property
    def path(self) -> str:
        """Where the node is in the spec, for messages."""
        return f"nodes.{self.name}"


def check_top(document: Value, problems: Problems) -> Mapping[str, Value]:
    """Return the document's keys, and report unknown ones. SpecError when it is no mapping at all."""
    if not isinstance(document.data, Mapping):
        problems.add(document.mark, "", "a spec is a mapping with `version`, `name`, `store` and `nodes`")
        raise problems.error()
    for key, value in document.data.items():
        if key not in TOP:
            problems.add(value.at, "", unknown("key", key, TOP))
    for key in ("version", "name", "store", "nodes"):
        if key not in document.data:
            problems.add(document.mark, key, "field is missing")
    version = document.data.get("version")
    if version and (version.data != 1 or version.data is True):
        problems.add(version.mark, "version", f"this vitpipe reads version 1, not {shown(version.data)}")
    return document.data


def read_name(value: Value, path: str, problems: Problems) -> str:
    """Read a name that is safe as a folder, a label and an object's key; empty once it is reported as wrong."""
    if not isinstance(value.data, str) or not NAME.fullmatch(value.data):
        given = shown(value.data) if not isinstance(value.data, (Mapping, tuple)) else "that"
        problems.add(value.mark, path, f"must match {NAME.pattern}, not {given}")
        return ""
    return value.data


def read_reuse(value: Value | None, problems: Problems) -> Reuse:
    """Read which results of the store's other runs may be adopted; `data` where nothing is said."""
    if value is None or value.data in REUSE:
        return value.data if value else REUSE[1]  # type: ignore[return-value]  # one of REUSE
    given = value.data if isinstance(value.data, str) else shown("that")
    problems.add(value.mark, "reuse", unknown("word", given, REUSE))
    return REUSE[1]


def read_nodes(nodes: Value, problems: Problems) -> list[Written]:
    """Read every node whose stage is known; what is wrong with the others is reported."""
    if not isinstance(nodes.data, Mapping) or not nodes.data:
        problems.add(nodes.at, "nodes", "must map names to nodes, at least one")
        return []
    found = []
    for name, value in nodes.data.items():
        if not NAME.fullmatch(name) or name in RESERVED_NODES:
            reserved = "is reserved" if name in RESERVED_NODES else f"must match {NAME.pattern}"
            problems.add(value.at, "nodes", f"the node's name {shown(name)} {reserved}")
        elif written := _read_node(name, value, problems):
            found.append(written)
    return found


def _read_node(name: str, value: Value, problems: Problems) -> Written | None:
    path = f"nodes.{name}"
    if not isinstance(value.data, Mapping):
        problems.add(value.at, path, "must be a mapping with `stage`, `needs`, `foreach`, `config` and `resources`")
        return None
    parts = value.data
    for key in parts.keys() - set(PARTS):
        problems.add(parts[key].at, f"{path}.{key}", unknown("key", key, PARTS))
    stage = parts.get("stage")
    if stage is None:
        problems.add(value.at, f"{path}.stage", f"field is missing; one of {', '.join(CATALOG)}")
        return None
    if not isinstance(stage.data, str) or stage.data not in CATALOG:
        given = stage.data if isinstance(stage.data, str) else type(stage.data).__name__
        problems.add(stage.mark, f"{path}.stage", unknown("stage", given, CATALOG))
        return None
    empty = Value({}, value.mark, key=value.at)

    def part(key: str) -> Value:
        given = parts.get(key, empty)
        return replace(empty, key=given.at) if given.data is None else given

    needs, config, resources = part("needs"), part("config"), part("resources")
    return Written(name, value.at, CATALOG[stage.data], needs, config, resources, parts.get("foreach"))
