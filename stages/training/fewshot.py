"""Which training images a few-shot score draws (paper, section 4.1). Knows labels alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from infra.errors import StageError

Indices = npt.NDArray[np.int64]


def draw(labels_N: Indices, num_classes: int, seed: int, shots: Sequence[int]) -> dict[int, Indices]:
    """Draw the support of one seed for every number of shots, nested, as big_vision does.

    Each class is permuted by one `default_rng(seed)`, class after class, and its first images are taken.
    StageError when a class has fewer images than shots.
    """
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(labels_N == label)) for label in range(num_classes)]
    short = [label for label, indices in enumerate(classes) if len(indices) < max(shots)]
    if short:
        raise StageError(
            f"draw {max(shots)} training images of each class",
            f"{len(short)} of {num_classes} classes have fewer, class {short[0]} has {len(classes[short[0]])}",
            "ask for fewer `shots`, or leave such classes out at ingest",
        )
    return {count: np.concatenate([indices[:count] for indices in classes]) for count in shots}
