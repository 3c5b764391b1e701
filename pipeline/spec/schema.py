"""The JSON Schema of the YAML, for editors: completion, and each field's sentence on hover. Made from the Settings."""

import ast
import inspect
import textwrap
from typing import Any

from pydantic.json_schema import models_json_schema

from vitpipe.pipeline.spec.catalog import CATALOG, REUSE, Stage
from vitpipe.pipeline.spec.places import models_in
from vitpipe.pipeline.spec.top_level import NAME
from vitpipe.stages.settings import Settings

REFERENCE = {"type": "string", "pattern": r"\$\{[^{}]+\}"}
"""`${vars.x}`, `${env:VITPIPE_X}` or `${each.x}`, which are allowed for any value."""
_REUSE = "Where equal results come from: this run alone, for data all runs of the store, or for all nodes."
_NEED = {"type": "string", "minLength": 1, "description": "A node, node/id, or the URI of another run's artifact."}


def json_schema() -> dict[str, Any]:
    """Make the schema of a whole spec; a node's `config` and `resources` follow from its `stage`."""
    definitions = _definitions()
    nodes = {stage.name: _node(stage) for stage in CATALOG.values()}
    node = {
        "type": "object",
        "required": ["stage"],
        "properties": {"stage": {"enum": list(CATALOG), "description": "Which step this is."}},
        "allOf": [
            {
                "if": {"properties": {"stage": {"const": name}}, "required": ["stage"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for name in nodes
        ],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vitpipe",
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["extends"]}, {"required": ["version", "name", "store", "nodes"]}],
        "properties": _top(),
        "if": {"required": ["extends"]},
        "then": {"properties": {"nodes": _nodes("part")}},
        "else": {"properties": {"nodes": _nodes("node")}},
        "$defs": {**definitions, **nodes, "node": node, "part": _part()},
    }


def _nodes(definition: str) -> dict[str, Any]:
    return {
        "additionalProperties": False,
        "patternProperties": {f"^{NAME.pattern}$": {"$ref": f"#/$defs/{definition}"}},
    }


def _part() -> dict[str, Any]:
    """Describe a node of a file that extends another: whole where it names its stage, else some of its fields."""
    sections = {name: {"type": "object"} for name in ("needs", "foreach", "config", "resources")}
    some = {"type": "object", "additionalProperties": False, "properties": sections}
    return {"if": {"required": ["stage"]}, "then": {"$ref": "#/$defs/node"}, "else": some}


def _top() -> dict[str, Any]:
    named = "The run's name: its folder in the store."
    return {
        "version": {"const": 1, "description": "Of this format."},
        "name": {"anyOf": [{"type": "string", "pattern": f"^{NAME.pattern}$"}, REFERENCE], "description": named},
        "store": {"type": "string", "description": "file://./folder, file:///folder or s3://bucket/prefix."},
        "reuse": {"anyOf": [{"enum": list(REUSE)}, REFERENCE], "default": "data", "description": _REUSE},
        "extends": {"type": "string", "description": "A YAML file that this one is merged over; relative to this one."},
        "vars": {"type": "object", "description": "Values that ${vars.NAME} stands for."},
        "nodes": {"type": "object", "minProperties": 1},
    }


def _node(stage: Stage) -> dict[str, Any]:
    needs = {
        name: {
            "description": f"A {need.kind}" + (", or several." if need.many else "."),
            "anyOf": [_NEED, {"type": "array", "items": _NEED}],
        }
        for name, need in stage.inputs.items()
    }
    required = [name for name, need in stage.inputs.items() if need.required]
    properties = {
        "stage": {"const": stage.name},
        "needs": {"type": "object", "additionalProperties": False, "properties": needs, "required": required},
        "foreach": {"type": "object", "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, REFERENCE]}},
        "config": _reference(stage.config_class()),
        "resources": _reference(stage.resources_class()),
    }
    fields = stage.config_class().model_fields.values()
    must = ["config"] if any(field.is_required() for field in fields) else []
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": must + (["needs"] if required else []),
    }


def _reference(cls: type[Settings]) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{cls.__name__}"}, REFERENCE]}


def _definitions() -> dict[str, Any]:
    classes = [cls for stage in CATALOG.values() for cls in (stage.config_class(), stage.resources_class())]
    _, schema = models_json_schema([(cls, "validation") for cls in classes])
    described = {cls.__name__: _sentences(cls) for top in classes for cls in _with_inner(top)}
    definitions: dict[str, Any] = schema["$defs"]
    for name, definition in definitions.items():
        for field, inner in definition.get("properties", {}).items():
            loose = {key: inner.pop(key) for key in ("default", "title") if key in inner}
            sentence = described.get(name, {}).get(field)
            definition["properties"][field] = {
                **(inner if "const" in inner else {"anyOf": [inner, REFERENCE]}),
                **({"description": sentence} if sentence else {}),
                **({"default": loose["default"]} if "default" in loose else {}),
            }
    return definitions


def _with_inner(cls: type[Settings]) -> set[type[Settings]]:
    found = {cls}
    for field in cls.model_fields.values():
        for inner in models_in(field):
            found |= _with_inner(inner)
    return found


def _sentences(cls: type[Settings]) -> dict[str, str]:
    """Find the sentence below each field in the source, of the base classes too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Settings):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, words in zip(body.body, body.body[1:], strict=False):
                match field, words:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = " ".join(text.split())
                    case _:
                        pass
    return found
