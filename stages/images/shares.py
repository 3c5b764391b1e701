"""Shares of a mixture, of whatever is mixed, as whole numbers of images in a block. No numpy: `validate` uses it."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

BLOCK = 1024
"""Fewest positions of a block: enough for neighbours, which Mixup pairs, to come from any two sets."""
FINEST = 10_000
"""Shares that need more parts than this are rounded to so many."""


def block_counts(shares: Sequence[float]) -> tuple[int, ...]:
    """Count the images of each set in a block: exactly in proportion, unless that needs more than `FINEST` parts.

    ValueError for a share that is not positive, or below one in `FINEST`.
    """
    if not shares or min(shares) <= 0:
        raise ValueError(f"every share must be above 0: {', '.join(map(str, shares))}")
    exact = [Fraction(str(share)) for share in shares]  # 0.1 is a tenth
    parts = [share / sum(exact) for share in exact]
    whole = lcm(*(part.denominator for part in parts))
    if whole > FINEST:
        return _rounded(parts, shares)
    times = -(-BLOCK // whole)
    return tuple(int(part * whole) * times for part in parts)


def _rounded(parts: Sequence[Fraction], shares: Sequence[float]) -> tuple[int, ...]:
    """Share `FINEST` images by largest remainder."""
    counts = [int(part * FINEST) for part in parts]
    left = sorted(range(len(parts)), key=lambda one: (counts[one] - parts[one] * FINEST, one))
    for one in left[: FINEST - sum(counts)]:
        counts[one] += 1
    if min(counts) == 0:
        raise ValueError(f"a share is below one in {FINEST}: {', '.join(map(str, shares))}")
    return tuple(counts)
