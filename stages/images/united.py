"""Several ShardSets read as one set: their classes have to be the same, in the same order. No torch."""

from collections.abc import Sequence

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.classes import difference
from vitpipe.stages.images.manifest import Manifest, load_manifest


def united(sets: Sequence[ShardSet], labelled: bool = True) -> tuple[Manifest, ...]:
    """Load the manifest of each set. UsageError naming the differences when their classes are not the same.

    A single-label and a multi-label set go together: both become soft labels. `labelled=False` skips the comparison,
    for readers that use no labels.
    """
    manifests = tuple(load_manifest(one) for one in sets)
    if labelled:
        refuse_other_classes([(one.uri, manifest.classes) for one, manifest in zip(sets, manifests, strict=True)])
    return manifests


def refuse_other_classes(sets: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Compare class names of sets, given as (URI, names). UsageError naming how one differs from the first."""
    for uri, classes in sets[1:]:
        first, names = sets[0]
        if tuple(classes) != tuple(names):
            found = f"their classes differ: {difference(names, classes)}"
            do = "ingest both with the same `class_names` or folders, so that a label means one class"
            raise UsageError(f"read {first} and {uri} as one", found, do)
