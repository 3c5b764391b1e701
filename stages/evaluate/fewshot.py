"""Few-shot scores from features: which images are drawn, and what a ridge makes of them (paper, section 4.1).

Knows no model: features come as arrays, so that the same code scores a network, a random one and raw pixels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from infra.errors import StageError
from stages.evaluate.ridge import Ridge

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


def accuracies(
    train_ND: npt.NDArray[np.floating],
    train_labels_N: Indices,
    test_MD: npt.NDArray[np.floating],
    test_labels_M: Indices,
    supports: dict[int, Indices],
    num_classes: int,
    l2: float,
) -> dict[int, float]:
    """The share of test images a ridge on each support names right, by number of shots.

    `supports` index the rows of `train_ND`; the test set is always whole.
    """
    scores = {}
    for shots, rows in supports.items():
        ridge = Ridge.fit(train_ND[rows], train_labels_N[rows], num_classes)
        scores[shots] = float((ridge.predict(test_MD, l2) == test_labels_M).mean())
    return scores
