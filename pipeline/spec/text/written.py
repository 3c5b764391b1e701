"""Where each field of a node is written, so that a remedy names the line to correct. Knows no stage and no node."""

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from vitpipe.infra.errors import VitpipeError
from vitpipe.pipeline.spec.text.yaml_source import Value

Failure = TypeVar("Failure", bound=VitpipeError)

_FIELD = re.compile(r"(?<!another )`([a-z_]\w*(?:\.\w+)*)(?:: [^`]+)?`(?! \()")
"""A field in a remedy; what is to have another `name` is the run."""


def places(value: Value, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield `source.root`, `mine.yaml:17` of each field in a mapping."""
    if isinstance(value.data, Mapping):
        for name, inner in value.data.items():
            mark = inner.at
            yield f"{path}{name}", f"{mark.file}:{mark.line}" if mark.line else mark.file
            yield from places(inner, f"{path}{name}.")


def located(error: Failure, written: Mapping[str, str]) -> Failure:
    """Say after each field that the remedy names where it is written: correct `root` (mine.yaml:17)."""

    def place(found: re.Match[str]) -> str:
        name = found[1]
        there = {place for path, place in written.items() if path == name or path.endswith(f".{name}")}
        return f"{found[0]} ({there.pop()})" if len(there) == 1 else found[0]

    do = _FIELD.sub(place, error.do)
    if do == error.do:
        return error
    told = type(error)(error.asked, error.found, do)
    told.__cause__ = error
    return told
