"""Which rank holds the others up: the one that by itself is slower than most, step after step.

Knows only what each rank measured of its own time.
"""

import statistics
from collections.abc import Sequence

from vitpipe.stages.training.measure.step_metrics import RankTimes

WINDOW = 30
"""Steps over which a rank is judged: one slow step is nobody's fault."""
SLOWER = 1.3
"""Times the median of all ranks."""
SHARE = 0.05
"""And by at least so much of the step: what costs less is not worth a person's time."""


class Stragglers:
    """Finds the slow ranks of one gang. Of two ranks there is no median: the faster one is the measure."""

    def __init__(self, num_ranks: int) -> None:
        self._sums = [[0.0, 0.0] for _ in range(num_ranks)]
        self._step_seconds, self._steps = 0.0, 0
        self._named: frozenset[int] = frozenset()

    def add(self, rank_times: Sequence[RankTimes], step_seconds: float) -> list[tuple[int, str]]:
        """Take a step in; at the end of a window the ranks that have become stragglers, with what they are like."""
        for sums, times in zip(self._sums, rank_times, strict=True):
            sums[0] += times.forward_seconds
            sums[1] += times.data_wait_seconds
        self._step_seconds, self._steps = self._step_seconds + step_seconds, self._steps + 1
        if self._steps < WINDOW:
            return []
        found = self._judged()
        new = [(rank, words) for rank, words in found.items() if rank not in self._named]
        self._named = frozenset(found)
        self._sums = [[0.0, 0.0] for _ in self._sums]
        self._step_seconds, self._steps = 0.0, 0
        return new

    def _judged(self) -> dict[int, str]:
        own = [forward + waited for forward, waited in self._sums]
        usual = statistics.median_low(own)
        found = {}
        for rank, seconds in enumerate(own):
            if seconds > SLOWER * usual and seconds - usual > SHARE * self._step_seconds:
                forward, waited = (part / self._steps for part in self._sums[rank])
                found[rank] = (
                    f"{seconds / self._steps:.3g} s a step by itself where {usual / self._steps:.3g} s is usual, over "
                    f"{self._steps} steps: {waited:.3g} s for data, {forward:.3g} s of forward passes"
                )
        return found
