"""Losses far above those of the steps before: people hear of them, training goes on. Knows nothing but the numbers."""

import statistics
from collections import deque

WINDOW = 100
"""Steps that say what is usual."""
LEAST = 20
"""Steps before anything is called unusual: the first ones of a run fall fast."""
FAR = 8.0
"""Standard deviations, by the median's own measure (1.4826 times the median absolute deviation), above the median."""
SHARE = 0.25
"""And by at least so much of the median, where losses hardly vary."""


class Spikes:
    """Watches one training's losses, step after step."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._high = False

    def add(self, loss: float) -> float | None:
        """The usual loss where a spike begins with this one. Losses that stay high become the usual ones."""
        usual, was_high = None, self._high
        self._high = False
        if len(self._losses) >= LEAST:
            usual = statistics.median(self._losses)
            deviation = 1.4826 * statistics.median(abs(one - usual) for one in self._losses)
            self._high = loss > usual + max(FAR * deviation, SHARE * abs(usual))
        self._losses.append(loss)
        return usual if self._high and not was_high else None
