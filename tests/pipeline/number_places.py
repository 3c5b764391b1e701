"""Every place of a config where a number may stand, found in its JSON Schema: nested, in lists, mappings and unions.

A new field is found without a word here.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from vitpipe.stages.settings import Settings

Schema = dict[str, Any]
Build = Callable[[Any], Any]

LENGTHS = ("epochs", "steps", "images")
EXAMPLES = {"kind": "digits", "variant": "Ti/16", "root": "photos", "urls": "photos.tar", "path": "model.safetensors"}
"""Words for fields that take not any; the files are the test's."""


@dataclass(frozen=True)
class Place:
    """One number of a config."""

    path: str
    bounds: Schema
    """Of a number its JSON Schema; empty for a length of training."""
    build: Build
    """A config with that number and what its surroundings need."""

    @property
    def ends(self) -> list[float]:
        """The least and the most that are accepted."""
        low, high = self.bounds.get("minimum"), self.bounds.get("maximum")
        return [end for end in (low, high) if end is not None]

    @property
    def unbounded(self) -> list[str]:
        """Which of both bounds are missing."""
        sides = {"least": ("minimum", "exclusiveMinimum"), "most": ("maximum", "exclusiveMaximum")}
        return [side for side, names in sides.items() if self.bounds and not any(name in self.bounds for name in names)]


def number_places(cls: type[Settings]) -> list[Place]:
    """All of a class, those of the classes inside it too."""
    schema = _schema(cls)
    return list(_Walk(schema.get("$defs", {})).places(schema, cls.__name__, lambda value: value))


def completed(cls: type[Settings], config: Any, base: Any) -> Any:
    """`base` with `config` over it; what nested sections lack then is filled in."""
    schema = _schema(cls)
    return _Walk(schema.get("$defs", {})).fill(schema, _merged(base, config))


@functools.cache
def _schema(cls: type[Settings]) -> Schema:
    return cls.model_json_schema()


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)) or over.get("kind", base.get("kind")) != base.get(
        "kind"
    ):
        return over
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def _length(build: Build, unit: str, value: Any) -> Any:
    return build(f"{value} {unit}")


def _field(build: Build, kind: Schema, name: str, value: Any) -> Any:
    return build({**kind, name: value})


def _item(build: Build, before: list[Any], after: list[Any], value: Any) -> Any:
    return build([*before, value, *after])


@dataclass(frozen=True)
class _Walk:
    definitions: Schema

    def resolved(self, schema: Schema) -> Schema:
        return self.definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def places(self, schema: Schema, path: str, build: Build) -> Iterator[Place]:
        schema = self.resolved(schema)
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self.places(one, path, build)
        if schema.get("type") in ("integer", "number") and not {"enum", "const"} & schema.keys():
            yield Place(path, schema, build)
        elif "epochs?" in schema.get("pattern", ""):
            for unit in LENGTHS:
                yield Place(f"{path} in {unit}", {}, partial(_length, build, unit))
        elif schema.get("type") == "array":
            yield from self.items(schema, path, build)
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from self.places(schema["additionalProperties"], f"{path}.*", partial(_field, build, {}, "train"))
        known = schema.get("properties", {})
        kind = {key: one["const"] for key, one in known.items() if "const" in one}
        for name, inner in known.items():
            yield from self.places(inner, f"{path}.{name}", partial(_field, build, kind, name))

    def items(self, schema: Schema, path: str, build: Build) -> Iterator[Place]:
        fixed = schema.get("prefixItems", [])
        for place, inner in enumerate(fixed):
            others = [self.example(one) for one in fixed]
            before, after = others[:place], others[place + 1 :]
            yield from self.places(inner, f"{path}[{place}]", partial(_item, build, before, after))
        if isinstance(schema.get("items"), dict):
            yield from self.places(schema["items"], f"{path}[]", partial(_item, build, [], []))

    def fill(self, schema: Schema, value: Any) -> Any:
        schema = self.resolved(schema)
        options = [self.resolved(one) for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()))]
        if not isinstance(value, dict):
            return value
        for one in options:
            kind = one.get("properties", {}).get("kind", {}).get("const")
            if value.keys() <= one.get("properties", {}).keys() and value.get("kind", kind) == kind:
                return self.fill(one, value)
        known, required = schema.get("properties", {}), schema.get("required", ())
        missing = {name: self.example(known[name], name) for name in required if name not in value}
        return {
            **missing,
            **{name: self.fill(known[name], one) if name in known else one for name, one in value.items()},
        }

    def example(self, schema: Schema, name: str = "") -> Any:
        schema = self.resolved(schema)
        if name in EXAMPLES or schema.get("type") == "string":
            return EXAMPLES.get(name, next(iter(schema.get("examples", ("x",)))))
        if "enum" in schema or "const" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("type") in ("integer", "number"):
            return schema.get("minimum", schema.get("maximum", schema.get("exclusiveMaximum")))
        if schema.get("type") == "object":
            return self.fill(schema, {})
        options = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        return self.example(options[0], name) if options else []
