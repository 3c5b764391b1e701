"""Parse YAML into plain values that know their line. Safe by construction: no tags, no classes, bounds on everything.

Built on ruamel's events, so that nothing is composed or expanded before it is counted. Knows nothing of pipelines.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from vitpipe.pipeline.spec.text.problems import Mark, Problems, SpecError, shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Values once aliases and references are followed: a bomb is recognised by its size before it is expanded."""

Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True)
class Value:
    """An immutable value with its place in the text."""

    data: "Scalar | tuple[Value, ...] | Mapping[str, Value]"
    mark: Mark
    key: Mark | None = None
    """Where its key is, for a value of a mapping."""
    size: int = field(init=False)
    """Number of values in it, itself included."""
    depth: int = field(init=False)
    """Number of levels in it, itself included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + sum(part.size for part in parts(self)))
        object.__setattr__(self, "depth", 1 + max((part.depth for part in parts(self)), default=0))

    @property
    def too_large(self) -> str | None:
        """The bound that it breaks, if any, known without walking it."""
        if self.size > MAX_VALUES:
            return f"more than {MAX_VALUES} values once aliases and references are followed"
        return f"nested deeper than {MAX_DEPTH} levels" if self.depth > MAX_DEPTH else None

    @property
    def at(self) -> Mark:
        """Where to point a reader: the key if there is one."""
        return self.key or self.mark


def parts(value: Value) -> tuple[Value, ...]:
    """List the values directly inside."""
    if isinstance(value.data, Mapping):
        return tuple(value.data.values())
    return value.data if isinstance(value.data, tuple) else ()


def plain(value: Value) -> Any:
    """Strip the places: dict, list and scalars are left."""
    if isinstance(value.data, Mapping):
        return {key: plain(part) for key, part in value.data.items()}
    return [plain(part) for part in value.data] if isinstance(value.data, tuple) else value.data


def parse(text: str, file: str, problems: Problems) -> Value:
    """Read one YAML document, and collect what is wrong with it. SpecError when nothing can be made of it."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.add(Mark(file), "", f"the text is larger than {MAX_BYTES // 1024} KiB")
        raise problems.error()
    builder = _Builder(file, problems)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(file, place.line + 1, place.column + 1) if place else Mark(file)
        problems.add(mark, "", f"not valid YAML: {error.problem or error.context}")
        raise problems.error() from None
    except (YAMLError, ValueError) as error:  # characters that YAML does not allow
        reason = getattr(error, "reason", None) or "unreadable characters"
        problems.add(Mark(file), "", f"not valid YAML: {reason}")
        raise problems.error() from None
    if builder.tagged:  # what is under a tag would only be reported again, in other words
        raise problems.error()
    return builder.root or Value(None, Mark(file, 1, 1))


@dataclass
class _Open:
    """A mapping or sequence whose end has not come yet."""

    mark: Mark
    anchor: str | None
    mapping: dict[str, Value] | None
    items: list[Value]
    key: tuple[str, Mark] | None = None


class _Builder:
    """Builds values from events, one at a time, without recursion."""

    def __init__(self, file: str, problems: Problems) -> None:
        self.file, self.problems = file, problems
        self.root: Value | None = None
        self.stack: list[_Open] = []
        self.anchors: dict[str, Value] = {}
        self.documents = 0
        self.tagged = False

    def take(self, event: Any) -> None:
        mark = Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                raise self._given_up(mark, "a second document begins here; one file is one spec")
            if event.version or event.tags:
                self.problems.add(mark, "", "directives (%YAML, %TAG) are not accepted")
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._refuse_tag(event, mark)
            if len(self.stack) >= MAX_DEPTH:
                raise self._given_up(mark, f"nested deeper than {MAX_DEPTH} levels")
            self.stack.append(_Open(mark, event.anchor, {} if kind.startswith("Mapping") else None, []))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            done = self.stack.pop()
            closed = tuple(done.items) if done.mapping is None else done.mapping
            self._place(Value(closed, done.mark), done.anchor)
        elif kind == "ScalarEvent":
            self._refuse_tag(event, mark)
            data = scalar(event.value) if event.style is None else event.value
            self._place(Value(data, mark), event.anchor, event.value)
        elif kind == "AliasEvent":
            if event.anchor not in self.anchors:
                raise self._given_up(mark, "an alias of an anchor that is not complete before it")
            self._place(replace(self.anchors[event.anchor], mark=mark), None)

    def _place(self, value: Value, anchor: str | None, text: str | None = None) -> None:
        if anchor:
            self.anchors[anchor] = value
        if value.too_large:
            raise self._given_up(value.mark, value.too_large)
        if not self.stack:
            self.root = value
            return
        parent = self.stack[-1]
        if parent.mapping is None:
            parent.items.append(value)
        elif parent.key is None:
            parent.key = (self._name(value, text, parent.mapping), value.mark)
        else:
            name, mark = parent.key
            parent.mapping.setdefault(name, replace(value, key=mark))
            parent.key = None

    def _name(self, value: Value, text: str | None, siblings: Mapping[str, Value]) -> str:
        if text is None:
            raise self._given_up(value.mark, "a key must be a plain word")
        if text == "<<":
            self.problems.add(value.mark, "", "merge keys (<<) are not accepted; use `extends` or `vars`")
        elif text in siblings:
            self.problems.add(value.mark, "", f"duplicate key {shown(text)}, first at line {siblings[text].at.line}")
        return text

    def _refuse_tag(self, event: Any, mark: Mark) -> None:
        if event.tag is not None:
            self.tagged = True
            self.problems.add(mark, "", "YAML tags (!...) are not accepted")

    def _given_up(self, mark: Mark, text: str) -> SpecError:
        self.problems.add(mark, "", text)
        return self.problems.error()


_INT = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def scalar(text: str) -> Scalar:
    """Give an unquoted word its meaning by YAML 1.2's core rules. `1e-3` is a number; `yes`, `on`, `.inf` are words."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if len(text) < 100 and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
