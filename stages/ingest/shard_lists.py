"""The class lists of ShardSets whose tars go in again: numbers of two sets are not one numbering. No torch.

A ShardSet's tars have numbers alone; what they mean stands in the `manifest.json` beside them.
"""

from collections.abc import Iterable

from infra.errors import StorageError
from infra.json_object import parse_object
from stages.images.manifest import MANIFEST
from stages.ingest.window import store_of


def other_lists(folders: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By folder the class names of its ShardSet, empty where it is none; nothing at all unless two sets differ.

    Tars of one set, and of sets with one list, keep their numbers.
    """
    several = sorted(set(folders))
    lists = {folder: _classes(folder) for folder in several} if len(several) > 1 else {}
    return lists if len(set(filter(None, lists.values()))) > 1 else {}


def _classes(folder: str) -> tuple[str, ...]:
    try:
        content = parse_object(store_of(folder).read(MANIFEST))
    except (StorageError, ValueError):  # none there, not to be read, or another's file of that name: tars alone count
        return ()
    classes = content.get("classes") if "shards" in content else None
    return tuple(map(str, classes)) if isinstance(classes, list) else ()
