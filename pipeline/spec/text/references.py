"""Fill in `${vars.x}`, `${env:VITPIPE_X}` and `${each.x}`, and report references that are wrong."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from vitpipe.pipeline.spec.text.problems import Problems, shown, unknown
from vitpipe.pipeline.spec.text.yaml_source import Scalar, Value, scalar

MAX_TEXT = 8192
"""Characters of one text after its references are filled in."""
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")

Lookup = Callable[[str, Value, str], Value | None]
"""Finds the value of a reference by what is between its braces, the value that uses it and that value's path. None once
it is reported as wrong, KeyError when the reference is not of this kind."""


def fill(value: Value, path: str, lookup: Lookup, problems: Problems) -> Value:
    """Replace the references that `lookup` knows. One that is alone in its string keeps its value's type."""
    if isinstance(value.data, Mapping):
        data = value.data.items()
        filled = {name: fill(part, f"{path}.{name}" if path else name, lookup, problems) for name, part in data}
        unchanged = all(filled[name] is part for name, part in data)
        return value if unchanged else replace(value, data=filled)
    if isinstance(value.data, tuple):
        items = tuple(fill(part, f"{path}[{i}]", lookup, problems) for i, part in enumerate(value.data))
        unchanged = all(new is old for new, old in zip(items, value.data, strict=True))
        return value if unchanged else replace(value, data=items)
    if isinstance(value.data, str) and "${" in value.data:
        return _fill_text(value, value.data, path, lookup, problems)
    return value


def _fill_text(value: Value, text: str, path: str, lookup: Lookup, problems: Problems) -> Value:
    alone = _REFERENCE.fullmatch(text)
    if alone:
        found = _ask(alone, value, path, lookup)
        return replace(found, mark=value.mark, key=value.key) if found else value

    def insert(match: re.Match[str]) -> str:
        found = _ask(match, value, path, lookup)
        if found is None:
            return match.group()
        if isinstance(found.data, (Mapping, tuple)):
            problems.add(value.at, path, f"{match.group()} is not a single value; it must stand alone in its string")
            return ""
        return word(found.data)

    filled = _REFERENCE.sub(insert, text)
    if len(filled) > MAX_TEXT:
        problems.add(value.at, path, f"longer than {MAX_TEXT} characters once references are filled in")
        return replace(value, data="")
    return value if filled == text else replace(value, data=filled)


def _ask(match: re.Match[str], value: Value, path: str, lookup: Lookup) -> Value | None:
    try:
        return lookup(match.group(1).strip(), value, path)
    except KeyError:
        return None


def word(data: Scalar) -> str:
    """Write a scalar inside a text, as YAML does."""
    return {None: "null", True: "true", False: "false"}[data] if data is None or isinstance(data, bool) else str(data)


def vars_lookup(vars: Mapping[str, Value], problems: Problems) -> Lookup:
    """Look up `vars.x`, or `vars.x.y` in a mapping. A var may use other vars, not itself."""
    filled: dict[str, Value] = {}
    open: list[str] = []

    def lookup(inside: str, user: Value, path: str) -> Value | None:
        kind, _, name = inside.partition(".")
        if kind != "vars":
            raise KeyError(inside)
        name, *fields = name.split(".")
        if name not in vars:
            problems.add(user.at, path, unknown("var", name, vars))
            return None
        if name in open:
            problems.add(user.at, path, f"vars go round in a circle: {' -> '.join([*open[open.index(name) :], name])}")
            return None
        if name not in filled:
            open.append(name)
            filled[name] = fill(vars[name], f"vars.{name}", lookup, problems)
            open.pop()
        return field_of(filled[name], f"vars.{name}", fields, user, path, problems)

    return lookup


def env_lookup(env: Mapping[str, str], problems: Problems) -> Lookup:
    """Look up `env:VITPIPE_X`; its text means what it would mean unquoted in the YAML."""

    def lookup(inside: str, user: Value, path: str) -> Value | None:
        kind, _, name = inside.partition(":")
        if kind != "env":
            raise KeyError(inside)
        if not re.fullmatch(r"VITPIPE_[A-Z0-9_]+", name):
            problems.add(user.at, path, f"only variables named VITPIPE_* may be read, not {shown(name)}")
            return None
        if name not in env:
            problems.add(user.at, path, f"the environment has no variable {name}")
            return None
        return Value(scalar(env[name]), user.mark)

    return lookup


def field_of(value: Value, name: str, fields: list[str], user: Value, path: str, problems: Problems) -> Value | None:
    """Walk into a mapping by the rest of a reference, and report what is not there."""
    for step in fields:
        if not isinstance(value.data, Mapping):
            problems.add(user.at, path, f"{name} is a single value and has no field {shown(step)}")
            return None
        if step not in value.data:
            problems.add(user.at, path, unknown(f"field of {name}", step, value.data))
            return None
        value, name = value.data[step], f"{name}.{step}"
    return value


def refuse_rest(value: Value, path: str, problems: Problems) -> None:
    """Report every `${` that is left: a reference of no known kind, `each` outside a `foreach`, or an unclosed one."""

    def left(inside: str, user: Value, place: str) -> Value | None:
        if inside.partition(".")[0] == "each":
            problems.add(user.at, place, f"${{{inside}}} has no `foreach` around it")
        elif not inside.startswith(("vars.", "env:")):  # those were reported when they were looked up
            kinds = "${vars.NAME}, ${env:VITPIPE_NAME} and, within a foreach, ${each.KEY}"
            problems.add(user.at, place, f"unknown reference {shown('${' + inside + '}')}; there are {kinds}")
        return Value("", user.mark)

    rest = fill(value, path, left, problems)
    _refuse_torn(rest, path, problems)


def _refuse_torn(value: Value, path: str, problems: Problems) -> None:
    if isinstance(value.data, Mapping):
        for name, part in value.data.items():
            _refuse_torn(part, f"{path}.{name}" if path else name, problems)
    elif isinstance(value.data, tuple):
        for index, part in enumerate(value.data):
            _refuse_torn(part, f"{path}[{index}]", problems)
    elif isinstance(value.data, str) and "${" in value.data:
        problems.add(value.at, path, f"a reference that is not closed: {shown(value.data)}")
