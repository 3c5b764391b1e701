"""Class names from the README of a data set on the Hugging Face Hub, for files whose schema has none. No torch."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vitpipe.infra.errors import NotFound
from vitpipe.infra.storage.hub_names import hub_place, is_hub
from vitpipe.infra.storage.opening import open_store

_FENCE = "---"


def named_in_card(folder: str, column: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a column's classes as the `dataset_info` of the README at a file's commit has them; `folder` is a URI.

    None for files elsewhere, for a README that says none, and where its configurations say different ones.
    """
    return _named(hub_place(folder).root, column) if is_hub(folder) else ()


@lru_cache(maxsize=16)
def _named(root: str, column: tuple[str, ...]) -> tuple[str, ...]:
    try:
        text = open_store(root).read("README.md").decode()
        head = text.split(f"{_FENCE}\n")[1] if text.startswith(f"{_FENCE}\n") else ""
        said = YAML(typ="safe", pure=True).load(head) or {}
        told = said.get("dataset_info") or [] if isinstance(said, dict) else []
    except (NotFound, UnicodeDecodeError, IndexError, YAMLError):
        return ()
    found = {names for one in (told if isinstance(told, list) else [told]) for names in _of(one, column)}
    return found.pop() if len(found) == 1 else ()


def _of(info: Any, column: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The names that one configuration gives the column."""
    here = info.get("features") if isinstance(info, dict) else None
    feature: Any = None
    for name in column:
        listed = here if isinstance(here, list) else []
        feature = next((one for one in listed if isinstance(one, dict) and one.get("name") == name), None)
        here = next((one for one in _values(feature) if isinstance(one, list)), None)
    for value in _values(feature):
        names = value.get("class_label", {}).get("names") if isinstance(value, dict) else None
        if isinstance(names, dict):
            by_number = {int(number): str(name) for number, name in names.items() if str(number).isdigit()}
            names = [by_number.get(number, "") for number in range(len(names))]
        if isinstance(names, list) and names and all(str(name).strip() for name in names):
            yield tuple(map(str, names))


def _values(feature: Any) -> Iterator[Any]:
    """What a feature holds, at any depth of sequences."""
    for value in feature.values() if isinstance(feature, dict) else ():
        yield value
        if isinstance(value, dict) and "class_label" not in value:
            yield from _values(value)
