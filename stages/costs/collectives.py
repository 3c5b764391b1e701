"""Seconds that ranks spend on sums and on each other's weights in one step, by ZeRO stage, on two levels of links.

Inside a machine each GPU has its NVLink; between machines all GPUs of one share its cards. A reduce-scatter or an
all-gather of S bytes over n machines takes (n - 1) latencies and S (n - 1)/n over the bandwidth in a ring, log2(n)
latencies and S over nine tenths of the bandwidth in a tree; an all-reduce is both. As NCCL does, each message takes the
quicker way (NVIDIA/nccl, src/graph/tuning.cc). That NCCL has trees for all gathers too, and not only for all-reduces,
is assumed: since 2.23 it has some.
"""

import math
from dataclasses import dataclass

from vitpipe.stages.costs.machines import GBIT, ClusterFacts

OVERLAP = {0: 0.0, 1: 0.0, 2: 0.5, 3: 0.5}
"""Share of the traffic that passes while the GPU computes. ZeRO 0 and 1 sum when the last backward pass is over
(`overlap_comm` is off, engine.py); 2 and 3 sum behind the backward pass, and what they gather for the next pass is not
hidden: half is assumed, none was measured."""
TREE_SPEED = 0.9
"""Share of a ring's bandwidth that a tree gets, by NCCL's own model."""
BUCKET_BYTES = 50e6
"""One message: a bucket of 25M elements in bf16 (`stages.training.config`)."""


@dataclass(frozen=True)
class Links:
    """What ranks are joined by."""

    ranks: int
    machines: int
    nvlink_bytes_per_s: float
    cluster: ClusterFacts


@dataclass(frozen=True)
class Traffic:
    """Bytes of whole tensors that pass in one step, each once in a reduce-scatter or all-gather."""

    summed: float
    """Gradients: reduce-scattered."""
    gathered: float
    """Weights, or sums where everybody has them whole: gathered."""

    @property
    def whole(self) -> float:
        """All of it."""
        return self.summed + self.gathered


def traffic(zero: int, parameters: int, weight_bytes: int, sum_bytes: int, passes: int = 1) -> Traffic:
    """Count what a step of `passes` micro-batches a rank sends (Rajbhandari et al. 2020, section 7).

    ZeRO 0 all-reduces gradients; 1 reduce-scatters them once a step and gathers the updated weights; 2 sums in each
    pass; 3 also gathers the weights for each forward and each backward pass, and none after the update.
    """
    sums, weights = float(parameters) * sum_bytes, float(parameters) * weight_bytes
    if zero == 0:
        return Traffic(sums, sums)
    if zero == 1:
        return Traffic(sums, weights)
    if zero == 2:
        return Traffic(passes * sums, weights)
    return Traffic(passes * sums, 2 * passes * weights)


def collective_seconds(bytes_: float, links: Links) -> float:
    """Seconds of reduce-scatters or all-gathers of so many bytes in all, in buckets, over both levels."""
    if not bytes_:
        return 0.0
    inside = -(-links.ranks // links.machines)
    messages = math.ceil(bytes_ / BUCKET_BYTES)
    share = links.cluster.link_efficiency
    within = bytes_ * (inside - 1) / inside / (links.nvlink_bytes_per_s * share)
    card = links.cluster.network_gbit_per_s * GBIT * share
    if links.machines == 1:
        return within
    latencies, message = messages * links.cluster.latency_s, bytes_ / card
    ring = message * (links.machines - 1) / links.machines + (links.machines - 1) * latencies
    tree = message / TREE_SPEED + math.ceil(math.log2(links.machines)) * latencies
    return within + min(ring, tree)


def exposed_seconds(zero: int, sent: Traffic, links: Links, compute_s: float, overlap: float | None = None) -> float:
    """Seconds of a step's traffic that the GPU waits for; what overlaps is hidden as far as there is compute."""
    whole = collective_seconds(sent.whole, links)
    hidden = min(whole * (OVERLAP[zero] if overlap is None else overlap), compute_s)
    return whole - hidden
