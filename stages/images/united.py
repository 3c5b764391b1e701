"""Several ShardSets read as one: their classes have to be the same, in the same order. No torch."""

from collections.abc import Sequence

from infra.errors import UsageError
from stages.artifacts import ShardSet
from stages.images.manifest import Manifest, load_manifest

NAMED = 3


def united(sets: Sequence[ShardSet], labelled: bool = True) -> tuple[Manifest, ...]:
    """The manifest of each set. UsageError naming the differences when a label would mean another class in one of them.

    A set of one class an image and a multi-label set go together: both become shares of classes. `labelled=False` is
    for those who look at no labels.
    """
    manifests = tuple(load_manifest(one) for one in sets)
    first = manifests[0].classes
    for one, manifest in zip(sets[1:], manifests[1:], strict=True):
        if labelled and manifest.classes != first:
            raise UsageError(
                f"read {sets[0].uri} and {one.uri} as one",
                f"their classes differ: {_difference(first, manifest.classes)}",
                "ingest both with the same `class_names` or folders, so that a label means one class",
            )
    return manifests


def _difference(one: Sequence[str], other: Sequence[str]) -> str:
    only = [sorted(set(here) - set(there)) for here, there in ((one, other), (other, one))]
    told = [
        f"only the {which} has {_some(names)}" for which, names in zip(("first", "second"), only, strict=True) if names
    ]
    if told:
        return f"{len(one)} and {len(other)}; {'; '.join(told)}"
    place = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return f"the same {len(one)} names in another order, from number {place} on: {one[place]!r} and {other[place]!r}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
