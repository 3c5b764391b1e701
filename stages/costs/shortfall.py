"""What a training lacks so that its model alone binds it, and how many workers are worth having. No torch."""

import bisect
import math
from collections.abc import Callable
from dataclasses import replace

from vitpipe.stages.costs.training import TOLERATED, TrainingCosts

HELPS = 1.5
"""Twice the workers help as long as they are so many times as fast."""
MOST_TIMES = 1024.0
"""A network so many times as fast is nothing to ask for."""


def needed(costs: TrainingCosts, compute_s: float, gpus_each: int) -> dict[str, float]:
    """Say what would have to be there so that each step takes about `compute_s`, as `Costs.needed` has it.

    Links inside a machine are as they are: where they hold a step up it takes as long as with them.
    """
    cluster, ranks, whole, found = costs.cluster, costs.ranks, compute_s, {}
    if costs.network_s > TOLERATED * costs.compute_s:
        speed = least_network(costs)
        if speed is None:
            whole += costs.network_s
        else:
            found["network_gbit_per_s"] = speed
    images_s = costs.images_s
    if images_s > whole:
        found |= cluster.cores_needed(math.ceil(images_s * ranks.cores / whole), ranks.count, gpus_each)
        if "cores_per_machine" in found:  # images bind whatever else there is
            beside = min(ranks.count, cluster.gpus_per_machine // max(1, gpus_each))
            images_s *= ranks.cores / max(ranks.cores, cluster.cores_per_machine // max(1, beside))
            whole = max(whole, images_s)
    if costs.binds == "store":
        found["store_gbit_per_s"] = cluster.store_gbit_per_s * costs.busiest_store_s / whole
    return found


def least_network(costs: TrainingCosts) -> float | None:
    """Gbit/s between machines from which waiting for sums is tolerable, two digits of it, rounded up.

    None where no speed helps: links inside a machine hold it up, or latencies.
    """
    now = costs.cluster.network_gbit_per_s

    def enough(times: float) -> bool:
        faster = replace(costs, cluster=costs.cluster.model_copy(update={"network_gbit_per_s": now * times}))
        return faster.network_s <= TOLERATED * costs.compute_s

    slow, fast = 1.0, MOST_TIMES
    if not enough(fast):
        return None
    while fast > 1.001 * slow:
        middle = math.sqrt(slow * fast)
        slow, fast = (slow, middle) if enough(middle) else (middle, fast)
    digit = 10.0 ** (math.floor(math.log10(now * fast)) - 1)
    return math.ceil(now * fast / digit) * digit


def knee(step_s: Callable[[int], float], most: int, micro_batches: int) -> int:
    """Find the workers beyond which twice as many are less than `HELPS` times as fast.

    Of so many as many train as are fastest: fewer, where they share the micro-batches of a step evenly.
    """
    counts = {1 << power for power in range(most.bit_length())}
    counts |= {count for count in range(1, min(micro_batches, most) + 1) if micro_batches % count == 0}
    tried = sorted(counts)
    fastest: list[float] = []
    for count in tried:
        fastest.append(min(step_s(count), fastest[-1] if fastest else math.inf))
    helped = [
        2 * count
        for count, seconds in zip(tried, fastest, strict=True)
        if 2 * count <= most and seconds / fastest[bisect.bisect_right(tried, 2 * count) - 1] >= HELPS
    ]
    return max(helped, default=1)
