"""The class lists of ShardSets whose tars go in again: numbers of two sets are not one numbering. No torch.

A ShardSet's tars have numbers alone; what they mean stands in the `manifest.json` beside them.
"""

from collections.abc import Iterable

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.json_object import parse_object
from vitpipe.stages.images.manifest import MANIFEST
from vitpipe.stages.ingest.sources.window import store_of


def other_lists(folders: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By folder the class names of its ShardSet, empty where it is none; nothing at all where all have one list.

    Tars of one set, and of sets with one list, keep their numbers; so do a set whose classes are called 0, 1, ... and
    tars without names, where a number is its own name. UsageError for a manifest that cannot be read.
    """
    several = sorted(set(folders))
    lists = {folder: _classes(folder) for folder in several} if len(several) > 1 else {}
    found = set(lists.values())
    own_names = () in found and all(names == tuple(map(str, range(len(names)))) for names in found)
    return lists if len(found) > 1 and not own_names else {}


def _classes(folder: str) -> tuple[str, ...]:
    """The classes of the ShardSet in a folder; none where no manifest lies, or one that says nothing of shards."""
    try:
        content = parse_object(store_of(folder).read(MANIFEST))
    except NotFound:
        return ()
    except ValueError as error:
        do = "restore it: it says what the numbers beside it mean; or ingest that folder apart"
        raise UsageError(f"read {folder}/{MANIFEST}", f"it is not JSON: {error}", do) from error
    classes = content.get("classes") if "shards" in content else None
    return tuple(map(str, classes)) if isinstance(classes, list) else ()
