"""What checkpoints and lost ranks cost a training, and how often to save so that both together cost least. No torch."""

import math
from dataclasses import dataclass

from vitpipe.stages.costs.machines import ClusterFacts

HOPELESS, MONTH_S = 100, 30 * 86_400.0
"""A training that takes so many times what its steps take, and a month, never comes to its end: as `goodput` has it."""
_LARGEST = 700.0
"""Exponents beyond which a float is infinite."""
_MANY = 2_000
"""Failures that are not counted one by one."""


@dataclass(frozen=True)
class Saving:
    """A training that saves, and now and then loses a rank."""

    seconds: float
    """Of the training, without either."""
    every_s: float
    """Between two checkpoints, without the wait for one."""
    stall_s: float
    """For which training waits at each."""
    upload_s: float
    """From there until it is in the store, while training goes on."""
    between_failures_s: float
    """Of all its ranks together, on average."""
    restart_s: float

    @property
    def _saves(self) -> int:
        return max(1, math.ceil(self.seconds / self.every_s))

    @property
    def _wait_s(self) -> float:
        """For which one checkpoint waits until the one before it is in the store."""
        return max(0.0, self.upload_s - self.every_s)

    @property
    def stalls_s(self) -> float:
        """Seconds of all checkpoints; the last step always is one, and it is waited for."""
        return self.stall_s * self._saves + self._wait_s * (self._saves - 1) + self.upload_s

    @property
    def expected_s(self) -> float:
        """Seconds of training, checkpoints and failures, which come without memory; infinite beyond floats.

        Daly 2006: M e^(R/M) (e^(T/M) - 1) for each interval of T seconds, M between two failures and R of a restart.
        A checkpoint that is uploaded while training goes on is there U later, which counts as R + U; the first after a
        restart waits for none before it.
        """
        mean, each = self.between_failures_s, min(self.every_s, self.seconds)
        wait = self._wait_s if each < self.seconds else 0.0
        interval = each + self.stall_s + wait
        lost = (self.restart_s + self.upload_s - wait) / mean
        if lost + interval / mean > _LARGEST:
            return math.inf
        return self.seconds / each * mean * math.exp(lost) * math.expm1(interval / mean) + self.upload_s

    @property
    def failures(self) -> float:
        """How many are expected until it has ended."""
        return min(self.expected_s, self._longest_s) / self.between_failures_s

    def is_likely(self, failures: int) -> bool:
        """Whether more failures than so many come in more than one of twenty such trainings (Poisson)."""
        return _more_than(failures, self.failures) > 0.05

    @property
    def most_failures(self) -> int:
        """The least number that is exceeded in at most one of a hundred such trainings."""
        low, high = 0, int(self.failures + 10 * math.sqrt(self.failures) + 10)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if _more_than(middle, self.failures) <= 0.01 else (middle + 1, high)
        return low

    @property
    def ends(self) -> bool:
        """Whether it comes to its end, as far as anybody would wait for it."""
        return self.expected_s <= self._longest_s

    @property
    def lost_s(self) -> float:
        """Seconds that failures are expected to cost: restarts, and steps made again; of one that never ends, so many
        that nobody waits for it."""
        return max(0.0, min(self.expected_s, self._longest_s) - self.seconds - self.stalls_s)

    @property
    def _longest_s(self) -> float:
        return HOPELESS * self.seconds + MONTH_S


def _more_than(count: int, mean: float) -> float:
    """Probability of more than so many events, where so many are expected; of many, by the normal distribution."""
    if mean > _MANY or count > 10 * _MANY:
        return 0.5 * math.erfc((count + 0.5 - mean) / math.sqrt(2 * mean)) if mean else 0.0
    logs = (number * math.log(mean) - mean - math.lgamma(number + 1) for number in range(count + 1))
    return 1.0 - math.fsum(map(math.exp, logs)) if mean else 0.0


def best_interval_s(stall_s: float, between_failures_s: float) -> float:
    """Find the seconds between checkpoints that lose least: where (e^((T + stall)/M) - 1) / T is smallest.

    Young's sqrt(2 stall M) and Daly's longer sum are what this is near where failures are seldom.
    """
    low, high = 0.0, 1.0  # of M
    for _ in range(50):
        share = (low + high) / 2
        # (1 - x) e^(x + stall/M) falls from above 1 to 0, and is 1 at the least
        if math.log1p(-share) + share + stall_s / between_failures_s > 0:
            low = share
        else:
            high = share
    return high * between_failures_s


def between_failures_s(cluster: ClusterFacts, ranks: int) -> float:
    """Seconds until one of so many GPUs, or ranks on cores, interrupts the training."""
    return cluster.gpu_hours_between_failures * 3600 / ranks


def stall_s(cluster: ClusterFacts, state_bytes: float, ranks: int) -> float:
    """Seconds of one checkpoint's copy into memory; each rank copies its part."""
    return state_bytes / ranks / cluster.copy_bytes_per_s


def upload_s(cluster: ClusterFacts, state_bytes: float, machines: int) -> float:
    """Seconds until one checkpoint is in the store, written as fast as it is read; each machine sends its part."""
    return state_bytes / machines / cluster.store_bytes_per_s(machines)
