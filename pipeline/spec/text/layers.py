"""Assemble a spec before anything in it is checked: a file, what it extends, what the command line overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.text.problems import Mark, Problems, shown, unknown
from vitpipe.pipeline.spec.text.yaml_source import MAX_BYTES, Value, parse

MAX_EXTENDS = 8
"""Files in one chain of `extends`."""


def read_file(path: Path, problems: Problems, chain: tuple[Path, ...] = ()) -> Value:
    """Parse a file and merge it over what it extends. UsageError when it cannot be read."""
    return extend(read_document(path, problems), path.parent, problems, (*chain, path.resolve()))


def read_document(path: Path, problems: Problems) -> Value:
    """Parse a file by itself. UsageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"read {path}", str(error.strerror), "check the path") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add(Mark(str(path)), "", f"not UTF-8 text: byte {error.start} cannot be read")
        raise problems.error() from None
    return parse(text, str(path), problems)


def extend(value: Value, folder: Path, problems: Problems, chain: tuple[Path, ...] = ()) -> Value:
    """Merge a document over the file that its `extends` names, relative to `folder`."""
    if not isinstance(value.data, Mapping) or "extends" not in value.data:
        return value
    named = value.data["extends"]
    own = replace(value, data={key: part for key, part in value.data.items() if key != "extends"})
    if not isinstance(named.data, str) or not named.data or "${" in named.data or "\0" in named.data:
        problems.add(named.at, "extends", f"must be the path of a YAML file, not {shown(named.data)}")
        return own
    path = folder / named.data
    if path.resolve() in chain:
        problems.add(named.at, "extends", f"{shown(named.data)} extends itself, directly or by way of others")
        return own
    if len(chain) >= MAX_EXTENDS:
        problems.add(named.at, "extends", f"a chain of more than {MAX_EXTENDS} files")
        return own
    if not path.is_file():
        problems.add(named.at, "extends", f"there is no file {shown(str(path), limit=200)}")
        return own
    return merge(read_file(path, problems, chain), own)


def merge(base: Value, over: Value) -> Value:
    """Mappings merge key by key; anything else replaces what was there, lists too."""
    if not isinstance(base.data, Mapping) or not isinstance(over.data, Mapping):
        return over
    merged = dict(base.data)
    for key, part in over.data.items():
        merged[key] = merge(merged[key], part) if key in merged else part
    return replace(over, data=merged)


def override(value: Value, overrides: Sequence[str], problems: Problems) -> Value:
    """Apply `a.b.c=value` from the command line; the value is read as YAML."""
    for text in overrides:
        path, equals, right = text.partition("=")
        mark = Mark(f"override {shown(path).strip(chr(39))}")
        steps = path.split(".")
        if not equals or not all(steps):
            problems.add(mark, "", "an override is written a.b.c=value")
        elif steps[0] == "extends":
            problems.add(mark, "", "`extends` is read before overrides and cannot be one")
        else:
            new = _moved(parse(right, mark.file, problems), mark)
            value = _set(value, steps, new, (), problems)
    return value


def _set(value: Value, steps: Sequence[str], new: Value, path: tuple[str, ...], problems: Problems) -> Value:
    if not steps:
        return new
    if value.data is None and path:
        value = replace(value, data={})
    if not isinstance(value.data, Mapping):
        where = ".".join(path) or "the spec"
        problems.add(new.mark, where, f"has no fields to override; it is {_kind(value)}")
        return value
    step, *rest = steps
    if path == ("nodes",) and step not in value.data:
        problems.add(new.mark, "nodes", unknown("node", step, value.data))
        return value
    inner = value.data.get(step, Value({}, new.mark, key=new.mark))
    changed = _set(inner, rest, new, (*path, step), problems)
    return replace(value, data={**value.data, step: changed})


def _kind(value: Value) -> str:
    return "a list" if isinstance(value.data, tuple) else f"the single value {shown(value.data)}"


def _moved(value: Value, mark: Mark) -> Value:
    """Return the same value, with the override as its only place."""
    data = value.data
    if isinstance(data, Mapping):
        data = {key: _moved(part, mark) for key, part in data.items()}
    elif isinstance(data, tuple):
        data = tuple(_moved(part, mark) for part in data)
    return Value(data, mark, key=mark)
