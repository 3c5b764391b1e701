"""Several ShardSets read as one: their classes have to be the same, in the same order. No torch."""

from collections.abc import Sequence

from infra.errors import UsageError
from stages.artifacts import ShardSet
from stages.images.classes import difference
from stages.images.manifest import Manifest, load_manifest


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
                f"their classes differ: {difference(first, manifest.classes)}",
                "ingest both with the same `class_names` or folders, so that a label means one class",
            )
    return manifests
