"""Makes the paths of source data in a config absolute, before anyone else sees them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.places import absolute_place, place_paths
from pipeline.text.yaml_source import Value
from stages.settings import Settings


def with_places(config: Value, cls: type[Settings], folder: Path) -> Value:
    """The config with every relative path of source data starting from `folder`."""
    for path in place_paths(cls):
        config = _place_at(config, path, folder)
    return config


def still_relative(config: Value, cls: type[Settings]) -> Iterator[tuple[str, Value]]:
    """Paths that began with a reference and turned out relative: nothing was there to put the folder before."""
    for path in place_paths(cls):
        here: Value | None = config
        for step in path:
            here = here.data.get(step) if here and isinstance(here.data, Mapping) else None
        for one in _each(here):
            if isinstance(one.data, str) and "://" not in one.data and not one.data.startswith("/"):
                yield ".".join(path), one


def _each(value: Value | None) -> tuple[Value, ...]:
    """The places at a path: one, or several in a list."""
    if value is None:
        return ()
    return value.data if isinstance(value.data, tuple) else (value,)


def _place_at(value: Value, path: Sequence[str], folder: Path) -> Value:
    if not path and isinstance(value.data, tuple):
        return replace(value, data=tuple(_place_at(one, path, folder) for one in value.data))
    if not path:
        is_path = isinstance(value.data, str) and not value.data.startswith("${")
        return replace(value, data=absolute_place(str(value.data), folder)) if is_path else value
    if not isinstance(value.data, Mapping) or path[0] not in value.data:
        return value
    return replace(value, data={**value.data, path[0]: _place_at(value.data[path[0]], path[1:], folder)})
