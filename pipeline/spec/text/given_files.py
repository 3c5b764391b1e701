"""Read the YAML files that fields of a config name: from here on their content is part of the spec itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.places import place_paths
from vitpipe.pipeline.spec.text.layers import read_document
from vitpipe.pipeline.spec.text.problems import Problems
from vitpipe.pipeline.spec.text.yaml_source import Value
from vitpipe.stages.settings import Settings


def with_contents(config: Value, cls: type[Settings], path: str, problems: Problems) -> Value:
    """Put in each such file's content; a name that is still a reference stays, and one that cannot be read goes."""
    for steps, mark in place_paths(cls).items():
        if mark.content:
            config = _read_at(config, steps, f"{path}.{'.'.join(steps)}", problems)
    return config


def _read_at(value: Value, steps: Sequence[str], path: str, problems: Problems) -> Value:
    if not isinstance(value.data, Mapping) or steps[0] not in value.data:
        return value
    inner = value.data[steps[0]]
    if steps[1:]:
        made: Value | None = _read_at(inner, steps[1:], path, problems)
    elif isinstance(inner.data, str) and "${" not in inner.data:
        made = _content(inner.data, inner, path, problems)
    else:
        made = inner
    rest = {key: part for key, part in value.data.items() if key != steps[0]}
    return replace(value, data={**rest, steps[0]: made} if made else rest)


def _content(named: str, value: Value, path: str, problems: Problems) -> Value | None:
    try:
        found = read_document(Path(named), problems)
    except UsageError as error:
        problems.add(value.at, path, f"{error.asked}: {error.found}")
        return None
    if not isinstance(found.data, Mapping):
        problems.add(value.at, path, f"{named} should hold one mapping, name: name")
        return None
    return replace(value, data=found.data)
