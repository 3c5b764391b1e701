"""Which training images a few-shot score draws (paper, section 4.1). Knows labels alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vitpipe.infra.errors import StageError

Indices = npt.NDArray[np.int64]

DEV_PER_CLASS = 10
"""Training images of a class, outside the support, on which penalties are compared."""


def draw(labels_N: Indices, num_classes: int, seed: int, shots: Sequence[int]) -> dict[int, Indices]:
    """Draw the support of one seed for every number of shots, nested, as big_vision does.

    Each class is permuted by one `default_rng(seed)`, class after class, and its first images are taken: all of them
    where they are fewer than shots.
    """
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(labels_N == label)) for label in range(num_classes)]
    return {count: np.concatenate([indices[:count] for indices in classes]) for count in shots}


def short_classes(labels_N: Indices, num_classes: int, per_class: int, strict: bool, field: str) -> int:
    """Count the classes of which there are fewer training images than `per_class`.

    StageError where there are any and `strict` refuses them; `field` is the config's that asks for so many.
    """
    counts = np.bincount(labels_N, minlength=num_classes)
    short = np.flatnonzero(counts < per_class)
    if strict and short.size:
        found = f"{short.size} of {num_classes} classes have fewer, class {short[0]} has {counts[short[0]]}"
        do = f"lower `{field}`, leave such classes out at ingest, or leave strict_{field} out to take what there is"
        raise StageError(f"take {per_class} training images of each class, not fewer", found, do)
    return int(short.size)


def left_over(labels_N: Indices, support: Indices, seed: int) -> Indices:
    """Up to DEV_PER_CLASS images of each class that the support does not have, drawn by seed, ascending.

    StageError when the support leaves none: there is nothing to compare penalties on.
    """
    free = np.setdiff1d(np.arange(len(labels_N)), support)
    order = np.random.default_rng(seed).permutation(free)
    grouped = [order[labels_N[order] == label][:DEV_PER_CLASS] for label in np.unique(labels_N[free])]
    if not grouped:
        asked = f"compare penalties on training images outside a support of {len(support)}"
        raise StageError(asked, "the support is all of train", "leave l2_shared out, or ask for fewer shots")
    return np.sort(np.concatenate(grouped))
