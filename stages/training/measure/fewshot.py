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

    Each class is permuted by one `default_rng(seed)`, class after class, and its first images are taken.
    StageError when a class has fewer images than shots.
    """
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(labels_N == label)) for label in range(num_classes)]
    short = [label for label, indices in enumerate(classes) if len(indices) < max(shots)]
    if short:
        found = f"{len(short)} of {num_classes} classes have fewer, class {short[0]} has {len(classes[short[0]])}"
        do = "ask for fewer `shots`, or leave such classes out at ingest"
        raise StageError(f"draw {max(shots)} training images of each class", found, do)
    return {count: np.concatenate([indices[:count] for indices in classes]) for count in shots}


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
