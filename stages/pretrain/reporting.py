"""Tell people how a pretraining goes: progress for the terminal and `status`, numbers for Prometheus.

Rank 0 speaks for all; nothing here touches what is computed.
"""

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from infra.work import Rank
from stages.pretrain.job import Job
from stages.training.checkpoint import Saved
from stages.training.loop import Facts
from stages.training.metrics_log import read
from stages.training.spikes import Spikes
from stages.vit.flops import train_flops_per_image

EVERY_S = 1.0
"""Numbers go out at most this often: a step of a small model is shorter than their way out."""
NAMED_KEYS = 8
"""Keys of images that an event names."""
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
"""Dense bf16 peaks from NVIDIA's data sheets, found in the device's name."""


class Reporter:
    """Of one rank; only rank 0's is asked to report steps."""

    def __init__(
        self, job: Job, rank: Rank, ranks: Sequence[dict[str, Any]], keys: Callable[[Iterable[int]], list[str]]
    ) -> None:
        """`keys` names the images at positions of the sample order."""
        self._job, self._rank, self._ranks, self._keys = job, rank, list(ranks), keys
        self._spikes = Spikes()
        self._sent = -EVERY_S
        self._waited = 0.0
        self._images = 0
        self._seconds = 0.0
        self._peak_flops = _peak_flops(rank)
        self._metrics: dict[str, float] = {"target_steps": job.course.total_steps, "ranks": len(self._ranks)}

    def step(self, facts: Facts) -> None:
        """Report a finished step, unless the last report is fresh."""
        self._waited += facts.data_wait_seconds
        self._images += self._job.course.config.batch_images
        self._seconds += facts.seconds
        self._tell(facts)
        now = time.monotonic()
        if now - self._sent < EVERY_S and not facts.settled:
            return
        rate = self._images / max(self._seconds, 1e-9)
        self._set(
            step=facts.step, samples_seen=facts.samples_seen, loss=facts.loss, learning_rate=facts.lr,
            gradient_norm=facts.grad_norm, images_per_second=rate, step_seconds=facts.seconds,
            peak_memory_bytes=_peak_memory(self._rank),
        )  # fmt: skip
        if self._peak_flops:
            flops = rate * train_flops_per_image(self._job.model)
            self._set(model_flops_utilization_ratio=flops / (self._peak_flops * self._rank.world_size))
        self._job.task.metrics.inc("data_wait_seconds_total", self._waited)
        total = self._job.course.total_steps
        self._job.task.progress.update(
            facts.step, total, images_per_second=rate, loss=facts.loss, ranks=self._ranks,
            metrics=dict(self._metrics),
        )  # fmt: skip
        self._sent, self._waited, self._images, self._seconds = now, 0.0, 0, 0.0

    def _tell(self, facts: Facts) -> None:
        """What a person should know of a step by itself."""
        if facts.skipped is not None:
            keys = self._keys(facts.skipped.positions[:NAMED_KEYS])
            more = len(facts.skipped.positions) - len(keys)
            names = ", ".join(keys) + (f" and {more} more" if more else "")
            self._job.task.events.emit("step_skipped", f"step {facts.step}: {facts.skipped}; {names}")
            self._job.task.metrics.inc("skipped_steps_total")
        elif usual := self._spikes.add(facts.loss):
            batch = self._job.course.config.batch_images
            text = f"step {facts.step}: a loss of {facts.loss:.4g} where {usual:.4g} is usual, for images at positions"
            span = f"{facts.samples_seen - batch}..{facts.samples_seen - 1}"
            self._job.task.events.emit("loss_spike", f"{text} {span} of the sample order")
            self._job.task.metrics.inc("loss_spikes_total")

    def saved(self, saved: Saved) -> None:
        """Report a committed checkpoint."""
        if self._rank.rank == 0:
            self._set(
                checkpoint_stall_seconds=saved.stall_seconds, checkpoint_commit_seconds=saved.commit_seconds,
                last_committed_step=saved.place.step, last_commit_timestamp_seconds=time.time(),
            )  # fmt: skip

    def totals(self, metrics: Path) -> dict[str, float]:
        """Numbers worth a line in the record, over all committed steps."""
        seconds, loss, steps = 0.0, 0.0, 0
        for fields in read(metrics):
            seconds, steps = seconds + fields["seconds"], steps + 1
            loss = loss if fields["loss"] is None else fields["loss"]
        images = steps * self._job.course.config.batch_images
        return {"loss": loss, "train_seconds": seconds, "images_per_second": images / max(seconds, 1e-9)}

    def _set(self, **values: float) -> None:
        self._metrics |= values
        for name, value in values.items():
            self._job.task.metrics.set(name, value)


def _peak_flops(rank: Rank) -> float | None:
    if rank.device == "cpu":
        return None
    name = torch.cuda.get_device_name(rank.device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


def _peak_memory(rank: Rank) -> float:
    if rank.device != "cpu":
        return float(torch.cuda.max_memory_allocated(rank.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
