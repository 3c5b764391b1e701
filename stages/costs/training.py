"""What binds a training: seconds of a step by what it waits for, and what would have to be there instead. No torch.

A step computes and then waits for what is not hidden of its collectives; meanwhile threads make the next batch's
images out of shards that others fetch. On CPU cores images and model share the same ones, so their times add up.
"""

import math
from dataclasses import dataclass
from typing import Literal

from vitpipe.stages.costs.collectives import Links, Traffic, collective_seconds, exposed_seconds
from vitpipe.stages.costs.failures import Saving, best_interval_s, between_failures_s, stall_s, upload_s
from vitpipe.stages.costs.fetching import Feed
from vitpipe.stages.costs.machines import ClusterFacts
from vitpipe.stages.costs.reading import ImageWork

TOLERATED = 0.25
"""Waiting for collectives, beside the model's own time, up to which a step still counts as bound by compute."""
Binds = Literal["compute", "launches", "images", "store", "network", "start", "none"]
"""What holds a training or tasks up; `launches` is a host that asks its GPU for less than it could do, `start` that
tasks start for longer than they work."""


@dataclass(frozen=True)
class RankSpeed:
    """Who trains."""

    count: int
    machines: int
    on_gpus: bool
    cores: int
    """Of each rank."""
    flops: float
    """FLOP/s of each that the model reaches."""
    core_speed: float = 1.0
    """Of one core, in images, beside the measured one."""
    nvlink_bytes_per_s: float = 1e9
    """Between ranks of one machine; without GPUs through memory."""
    overhead_s: float = 0.0
    """Of each step, beside its FLOPs."""
    launch_s: float = 0.0
    """In which a host asks its GPU for one operation."""


@dataclass(frozen=True)
class TrainingWork:
    """What is trained, in numbers alone."""

    batch_images: int
    micro_batch: int
    steps: int
    image_flops: float
    """Of the model alone."""
    recomputed_flops: float
    """Of an image's blocks, where they are computed again."""
    launches: float
    """Operations of one step that its GPU is asked for."""
    recomputed_launches: float
    """Those of them that blocks are computed again by."""
    zero: int
    sent: Traffic
    """Of one step."""
    state_bytes: float
    """Of a checkpoint."""
    checkpoint_steps: int
    image: ImageWork
    feed: Feed


@dataclass(frozen=True)
class TrainingCosts:
    """Seconds of one step by what takes them, and what follows."""

    work: TrainingWork
    ranks: RankSpeed
    cluster: ClusterFacts

    @property
    def passes(self) -> int:
        """Micro-batches of the rank that has most."""
        micro_batches = -(-self.work.batch_images // self.work.micro_batch)
        return -(-micro_batches // self.ranks.count)

    @property
    def recompute_s(self) -> float:
        """For which a pass forth and back is longer because blocks are computed again."""
        launches_s = self.launches_s - self.work.recomputed_launches * self.ranks.launch_s
        return self.compute_s - max(self.model_s - self._passes_s(self.work.recomputed_flops), launches_s)

    @property
    def model_s(self) -> float:
        """The model's FLOPs, with those that it computes again."""
        return self._passes_s(self.work.image_flops + self.work.recomputed_flops) + self.ranks.overhead_s

    def _passes_s(self, image_flops: float) -> float:
        """Seconds of so many FLOPs an image, of the rank that has most micro-batches."""
        return self.passes * self.work.micro_batch * image_flops / self.ranks.flops

    @property
    def launches_s(self) -> float:
        """For which a host asks its GPU for work, while it works."""
        return self.work.launches * self.ranks.launch_s

    @property
    def compute_s(self) -> float:
        """The model's pass forth and back: no less than it takes to ask for it."""
        return max(self.model_s, self.launches_s)

    @property
    def images_s(self) -> float:
        """Images of a rank's share, on all its cores."""
        each = self.work.image.milliseconds(self.ranks.core_speed) / 1000
        return self.work.batch_images / self.ranks.count * each / self.ranks.cores

    @property
    def store_s(self) -> float:
        """A step's share of what a machine reads from the store in the whole training."""
        rate = self.cluster.store_bytes_per_s(self.ranks.machines)
        return self.work.feed.fetched_bytes / max(1, self.work.steps) / rate

    @property
    def base_s(self) -> float:
        """A step whose shards are there: on GPUs the longest of what goes on at once, on cores all of it."""
        device = self.compute_s + self.network_s
        return max(device, self.images_s) if self.ranks.on_gpus else device + self.images_s

    @property
    def _waits(self) -> list[tuple[float, float]]:
        """For how many steps a step of the store's alone takes how long: most of it in the first epoch, mostly."""
        feed, rate = self.work.feed, self.cluster.store_bytes_per_s(self.ranks.machines)
        each = self.work.steps / max(feed.epochs, 1e-9)
        return [(epochs * each, bytes_ / each / rate) for epochs, bytes_ in feed.fetches]

    @property
    def busiest_store_s(self) -> float:
        """A step's share of the epoch that reads most from the store."""
        return max((seconds for _, seconds in self._waits), default=0.0)

    @property
    def links(self) -> Links:
        """What the ranks are joined by."""
        return Links(self.ranks.count, self.ranks.machines, self.ranks.nvlink_bytes_per_s, self.cluster)

    @property
    def network_s(self) -> float:
        """What is not hidden of the collectives."""
        return exposed_seconds(self.work.zero, self.work.sent, self.links, self.compute_s)

    @property
    def traffic_s(self) -> float:
        """All of the collectives, hidden or not."""
        return collective_seconds(self.work.sent.whole, self.links)

    @property
    def step_s(self) -> float:
        """Whole step, the mean over all epochs: one that reads from the store for longer waits for it."""
        late = sum(steps * max(0.0, seconds - self.base_s) for steps, seconds in self._waits)
        return self.base_s + late / max(1, self.work.steps)

    @property
    def binds(self) -> Binds:
        """What a step would be shorter without."""
        device = self.compute_s + self.network_s
        if self.step_s > (1 + TOLERATED) * self.base_s:
            return "store"
        if self.images_s > (device if self.ranks.on_gpus else self.compute_s):
            return "images"
        if self.network_s > TOLERATED * self.compute_s and (self.ranks.on_gpus or self.network_s >= self.images_s):
            return "network"
        return "launches" if self.launches_s > self.model_s else "compute"

    @property
    def saving(self) -> Saving:
        """Checkpoints and failures of the whole training."""
        return Saving(
            seconds=self.work.steps * self.step_s,
            every_s=self.work.checkpoint_steps * self.step_s,
            stall_s=stall_s(self.cluster, self.work.state_bytes, self.ranks.count),
            upload_s=upload_s(self.cluster, self.work.state_bytes, self.ranks.machines),
            between_failures_s=between_failures_s(self.cluster, self.ranks.count),
            restart_s=self.cluster.restart_s if self.ranks.on_gpus else 0.0,
        )

    @property
    def seconds(self) -> float:
        """The whole training, with checkpoints and the failures to be expected."""
        return self.saving.seconds + self.saving.stalls_s + self.saving.lost_s

    @property
    def best_checkpoint_steps(self) -> int:
        """Steps between checkpoints that lose least: as long as one's upload at least, and no more than there are."""
        saving = self.saving
        best = best_interval_s(saving.stall_s, saving.between_failures_s)
        return max(1, min(self.work.steps, max(round(best / self.step_s), math.ceil(saving.upload_s / self.step_s))))

    @property
    def images_per_s(self) -> float:
        """Images a second of all ranks together, while no checkpoint is made."""
        return self.work.batch_images / self.step_s
