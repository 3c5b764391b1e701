"""Make the paths of source data in a config absolute, before anything else sees them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitpipe.pipeline.spec.places import absolute_place, place_paths, places_in
from vitpipe.pipeline.spec.text.yaml_source import Value
from vitpipe.stages.settings import Place, Settings


def with_places(config: Value, cls: type[Settings], folder: Path) -> Value:
    """Make every relative path of source data in the config start from `folder`."""
    for path, mark in place_paths(cls).items():
        config = _place_at(config, path, mark, folder)
    return config


def still_relative(config: Value, cls: type[Settings]) -> Iterator[tuple[str, Value]]:
    """Yield places that began with a reference and turned out relative: `with_places` had nothing to extend."""
    for path, mark in place_paths(cls).items():
        here: Value | None = config
        for step in path:
            here = here.data.get(step) if here and isinstance(here.data, Mapping) else None
        for one in _each(here):
            places = places_in(one.data, mark) if isinstance(one.data, str) else []
            if any("://" not in place and not place.startswith("/") for place in places):
                yield ".".join(path), one


def _each(value: Value | None) -> tuple[Value, ...]:
    """List the places at a path: one, or several in a list."""
    if value is None:
        return ()
    return value.data if isinstance(value.data, tuple) else (value,)


def _place_at(value: Value, path: Sequence[str], mark: Place, folder: Path) -> Value:
    if not path and isinstance(value.data, tuple):
        return replace(value, data=tuple(_place_at(one, path, mark, folder) for one in value.data))
    if not path:
        return replace(value, data=_placed(value.data, mark, folder)) if isinstance(value.data, str) else value
    if not isinstance(value.data, Mapping) or path[0] not in value.data:
        return value
    return replace(value, data={**value.data, path[0]: _place_at(value.data[path[0]], path[1:], mark, folder)})


def _placed(text: str, mark: Place, folder: Path) -> str:
    if text in mark.words:
        return text
    places = (one if one.startswith("${") else absolute_place(one, folder) for one in places_in(text, mark))
    return mark.separator.join(places)
