"""What checkpoints and lost ranks cost a training, and how often to save so that both together cost least. No torch."""

import math
from dataclasses import dataclass

from vitpipe.stages.costs.machines import ClusterFacts


@dataclass(frozen=True)
class Saving:
    """A training that saves, and now and then loses a rank."""

    seconds: float
    """Of the training, without either."""
    every_s: float
    """Between two checkpoints."""
    stall_s: float
    """For which training waits at each."""
    between_failures_s: float
    """Of all its ranks together, on average."""
    restart_s: float

    @property
    def stalls_s(self) -> float:
        """Seconds of all checkpoints; the last step always is one."""
        return self.stall_s * max(1, math.ceil(self.seconds / self.every_s))

    @property
    def lost_s(self) -> float:
        """Seconds that failures are expected to cost: each a restart and half an interval done again."""
        failures = self.seconds / self.between_failures_s
        return failures * (self.restart_s + min(self.every_s, self.seconds) / 2)


def best_interval_s(stall_s: float, between_failures_s: float) -> float:
    """Find the seconds between checkpoints that lose least (Young 1974, with Daly's 2006 term of higher order)."""
    if stall_s >= 2 * between_failures_s:
        return between_failures_s
    ratio = math.sqrt(stall_s / (2 * between_failures_s))
    return math.sqrt(2 * stall_s * between_failures_s) * (1 + ratio / 3 + ratio**2 / 9) - stall_s


def between_failures_s(cluster: ClusterFacts, ranks: int) -> float:
    """Seconds until one of so many GPUs, or ranks on cores, interrupts the training."""
    return cluster.gpu_hours_between_failures * 3600 / ranks


def stall_s(cluster: ClusterFacts, state_bytes: float, ranks: int) -> float:
    """Seconds of one checkpoint's copy into memory; each rank copies its part."""
    return state_bytes / ranks / cluster.copy_bytes_per_s
