"""Tells people how a pretraining goes: progress for the terminal and `status`, numbers for Prometheus, events.

Rank 0 speaks for all; nothing here touches what is computed.
"""

import math
import re
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vitpipe.infra.work import Rank
from vitpipe.stages.pretrain.job import PretrainJob
from vitpipe.stages.pretrain.notes import Keys
from vitpipe.stages.pretrain.stragglers import Stragglers
from vitpipe.stages.training.checkpoint.checkpoints import Saved
from vitpipe.stages.training.measure.account import Account, Cause
from vitpipe.stages.training.measure.metrics_log import LogSnapshot, read
from vitpipe.stages.training.measure.spikes import Spikes
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.objective_costs import train_flops

EVERY_S = 1.0
"""Numbers go out at most this often: a step of a small model is shorter than their way out."""
NAMED_KEYS = 8
"""Keys of images that an event names."""
_COUNTED: dict[Cause, str] = {
    "productive": "productive_seconds_total",
    "queue": "queue_wait_seconds_total",
    "startup": "startup_seconds_total",
    "checkpoint": "checkpoint_stall_seconds_total",
    "evaluation": "evaluation_seconds_total",
    "restarts": "restart_lost_seconds_total",
    "data_wait": "data_wait_seconds_total",
}

PEAK_FLOPS = {
    "A10": 125e12, "A30": 165e12, "A40": 150e12, "A100": 312e12, "A800": 312e12, "RTX A6000": 155e12,
    "L4": 121e12, "L40": 181e12, "L40S": 362e12, "RTX 4090": 165e12,
    "H100": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H800": 989e12, "H200": 989e12, "GH200": 989e12,
    "B200": 2250e12,
}  # fmt: skip
"""Dense bf16 FLOP/s from NVIDIA's data sheets (those with sparsity halved), by words of the device's name."""


class Reporter:
    """Reports of one rank; only rank 0's is asked to report steps."""

    def __init__(self, job: PretrainJob, rank: Rank, ranks: Sequence[dict[str, Any]], keys: Keys) -> None:
        self._job, self._rank, self._ranks, self._keys = job, rank, [dict(one) for one in ranks], keys
        self._spikes, self._stragglers = Spikes(), Stragglers(len(self._ranks))
        self._sent, self._waited, self._images, self._seconds = -EVERY_S, 0.0, 0, 0.0
        self._counted: dict[str, float] = {}
        self._peak_flops = None if rank.device == "cpu" else peak_flops(torch.cuda.get_device_name(rank.device))
        self._flops = train_flops(job.recipe.config.objective, job.model)
        self._loss: float | None = None
        self._committed = time.monotonic()  # nothing is lost of what was before we began
        self._committed_step: int | None = None
        if rank.rank == 0:
            for name in ("skipped_steps_total", "loss_spikes_total"):
                job.task.metrics.inc(name, 0.0)

    def step(self, done: StepMetrics, account: Account) -> None:
        """Report a finished step, unless the last report is fresh."""
        self._waited += done.data_wait_seconds
        self._images += self._job.recipe.config.batch_images
        self._seconds += done.seconds
        self._tell(done)
        now = time.monotonic()
        if now - self._sent < EVERY_S and not done.settled:
            return
        self._loss = done.loss if math.isfinite(done.loss) else self._loss
        rate, share = self._images / max(self._seconds, 1e-9), self._waited / max(self._seconds, 1e-9)
        self._set(
            samples_seen=done.samples_seen,
            learning_rate=done.lr,
            gradient_norm=done.grad_norm,
            step_seconds=done.seconds,
            data_wait_ratio=min(1.0, share),
            last_commit_age_seconds=now - self._committed,
            peak_memory_bytes=_peak_memory(self._rank),
        )
        self._set(**self._utilization(rate))
        self._tell_time(account)
        self._tell_ranks(done)
        self._job.task.progress.update(
            done.step,
            self._job.recipe.total_steps,
            images_per_second=rate,
            loss=self._loss,
            ranks=self._ranks,
            committed_step=self._committed_step,
        )
        self._sent, self._waited, self._images, self._seconds = now, 0.0, 0, 0.0

    def saved(self, saved: Saved) -> None:
        """Report a committed checkpoint."""
        if self._rank.rank == 0:
            self._set(
                checkpoint_stall_seconds=saved.stall_seconds,
                checkpoint_commit_seconds=saved.commit_seconds,
                last_committed_step=saved.place.step,
            )
            self._committed, self._committed_step = time.monotonic(), saved.place.step

    def evaluated(self, found: Mapping[str, Any]) -> None:
        """Report a measurement between two steps."""
        values = {f"validation_{name}": found[name] for name in ("loss", "accuracy") if found.get(name) is not None}
        self._set(**values)
        for name, accuracy in found.get("watch", {}).items():
            self._job.task.metrics.set("watched_accuracy", accuracy, benchmark=name)
        for probe, accuracies in found.get("fewshot", {}).items():
            shots, accuracy = next(iter(accuracies.items()))
            self._job.task.metrics.set("fewshot_accuracy", accuracy, benchmark=f"{probe}-{shots}-shot")
        words = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items()]
        words += [f"{name} {100 * value:.1f} %" for name, value in found.get("watch", {}).items()]
        words += [
            f"{probe} {', '.join(f'{shots}-shot {100 * value:.1f} %' for shots, value in accuracies.items())}"
            for probe, accuracies in found.get("fewshot", {}).items()
        ]
        self._job.task.events.emit("evaluated", f"step {found['step']}: {'; '.join(words)}")

    def totals(self, metrics: LogSnapshot) -> dict[str, float]:
        """Numbers worth a line in the record, over all committed steps."""
        seconds, loss, steps, skipped = 0.0, 0.0, 0, 0
        for fields in read(metrics):
            seconds, steps = seconds + fields["seconds"], steps + 1
            skipped += "skipped" in fields
            loss = loss if fields["loss"] is None else fields["loss"]
        images = steps * self._job.recipe.config.batch_images
        rate = images / max(seconds, 1e-9)
        totals = {"loss": loss, "train_seconds": seconds, "images_per_second": rate, "skipped_steps": skipped}
        return totals | self._utilization(rate)

    def _utilization(self, images_per_second: float) -> dict[str, float]:
        """MFU of all ranks; of bf16 on a GPU alone, whose peak is known."""
        if not self._peak_flops or self._job.recipe.config.precision != "bf16":
            return {}
        peak = self._peak_flops * self._rank.world_size
        return {"model_flops_utilization_ratio": images_per_second * self._flops / peak}

    def _tell(self, done: StepMetrics) -> None:
        """What a person should know of a step by itself."""
        metrics = self._job.task.metrics
        for rank, words in self._stragglers.add(done.rank_times, done.seconds):
            self._job.task.events.emit("straggler", f"rank {rank} ({self._ranks[rank]['host']}) is slow: {words}")
        if done.skipped is not None:
            keys = self._keys(done.skipped.positions[:NAMED_KEYS])
            more = len(done.skipped.positions) - len(keys)
            names = ", ".join(keys) + (f" and {more} more" if more else "")
            self._job.task.events.emit("step_skipped", f"step {done.step}: {done.skipped}; {names}")
            metrics.inc("skipped_steps_total")
        elif usual := self._spikes.add(done.loss):
            batch = self._job.recipe.config.batch_images
            text = f"step {done.step}: a loss of {done.loss:.4g} where {usual:.4g} is usual, for images at positions"
            span = f"{done.samples_seen - batch}..{done.samples_seen - 1}"
            self._job.task.events.emit("loss_spike", f"{text} {span} of the sample order")
            metrics.inc("loss_spikes_total")

    def _tell_time(self, account: Account) -> None:
        """Count where the time goes, since this gang began: what was before, its own process has counted."""
        for cause, name in _COUNTED.items():
            spent = account.seconds[cause] - account.before[cause]
            self._job.task.metrics.inc(name, max(0.0, spent - self._counted.get(name, 0.0)))
            self._counted[name] = spent
        self._set(goodput_ratio=account.totals(time.time())["goodput"])

    def _tell_ranks(self, done: StepMetrics) -> None:
        for rank, times in zip(self._ranks, done.rank_times, strict=True):
            rank |= {"forward_seconds": times.forward_seconds, "data_wait_seconds": times.data_wait_seconds}
            for name in ("forward_seconds", "data_wait_seconds"):
                self._job.task.metrics.set(f"rank_{name}", rank[name], rank=str(rank["rank"]))

    def _set(self, **values: float) -> None:
        """Numbers that are not finite are left at their last value: events tell of them, and skipped steps."""
        for name, value in values.items():
            if math.isfinite(value):
                self._job.task.metrics.set(name, value)


def peak_flops(device: str) -> float | None:
    """Peak dense bf16 FLOP/s of a device by the name that CUDA has for it; None for one that the table lacks."""
    words = set(re.split(r"[^A-Za-z0-9]+", device))
    known = [name for name in PEAK_FLOPS if set(name.split()) <= words]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def _peak_memory(rank: Rank) -> float:
    if rank.device != "cpu":
        return float(torch.cuda.max_memory_allocated(rank.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
