"""The images that a classifier named wrongly, the surest first, so that a page can show them.

Knows outputs and numbers of images in their split; no image and no name. Shapes: B images, K classes.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

KEPT = 24
"""Images that are kept: about what a page shows."""


class Wrong(NamedTuple):
    """One image under a wrong name."""

    image: int
    """Its number in the split, in manifest order."""
    actual: int
    given: int
    confidence: float
    """Share of the softmax that the wrong name got."""


def wrong_names(logits_BK: Tensor, labels_B: Tensor, numbers_B: Iterable[int]) -> list[Wrong]:
    """List every image whose highest output is not its class."""
    confidence_B, given_B = logits_BK.float().softmax(dim=1).max(dim=1)
    found = zip(numbers_B, labels_B.tolist(), given_B.tolist(), confidence_B.tolist(), strict=True)
    return [Wrong(number, actual, given, sure) for number, actual, given, sure in found if actual != given]


def surest(found: Iterable[Wrong]) -> tuple[Wrong, ...]:
    """Keep those whose wrong name was surest; of equal ones the first in the split."""
    return tuple(sorted(found, key=lambda one: (-one.confidence, one.image))[:KEPT])
