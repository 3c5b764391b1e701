"""One device shared by fine-tuning trials: images a second of 1, 2 and 4 at once, each in a process of its own.

They are a trial's own training steps, on images that lie ready; a run shares a GPU so by `gpus_per_task: 0.25`.
"""

import itertools
import multiprocessing
import queue
import time
from dataclasses import dataclass
from typing import Any

import torch

from vitpipe.stages.finetune.tuning import Recipe, train_steps
from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.training import B16, SHRUNK, BenchModel, Setting, made_up
from vitpipe.stages.settings import Duration
from vitpipe.stages.training.optim.rules.sgd import Sgd
from vitpipe.stages.training.optim.schedule import ScheduleSettings
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.init import init_weights

WARM = 3
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Share:
    """What each trial does."""

    model: BenchModel
    micro_batch: int
    device: str
    steps: int
    precision: str


def run(way: Way, findings: Findings) -> None:
    """Measure 1, 2 and 4 trials at once; of a shrunk check one and two."""
    share = Share(SHRUNK, 4, way.device, 2, "fp32") if way.shrunk else Share(B16, 64, way.device, 30, "bf16")
    alone = 0.0
    for trials in (1, 2) if way.shrunk else (1, 2, 4):
        if alone and not way.shrunk and findings.left() < 15:
            findings.left_out(f"{trials} trials at once")
            continue
        speeds = at_once(share, trials)
        together = sum(speeds)
        alone = alone or together
        cells = {"trials at once": trials, "images/s of all": together, "of one trial's": together / alone}
        cells["slowest"], cells["fastest"] = min(speeds), max(speeds)
        findings.row({"training": f"{share.model.name} x {share.micro_batch}, {share.precision}", **cells})


def at_once(share: Share, trials: int) -> list[float]:
    """Run so many trials, begun together: images a second of each. RuntimeError for one that died."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(trials), context.Queue()
    processes = [context.Process(target=_trial, args=(share, barrier, found)) for _ in range(trials)]
    for process in processes:
        process.start()
    try:
        speeds: list[float] = []
        until = time.monotonic() + PATIENCE_S
        while len(speeds) < trials:
            try:
                speeds.append(found.get(timeout=0.5))
            except queue.Empty:
                if any(process.exitcode for process in processes) or time.monotonic() > until:
                    codes = [process.exitcode for process in processes]
                    raise RuntimeError(f"{trials} trials at once: they ended with {codes}") from None
        return speeds
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()


def _trial(share: Share, barrier: Any, found: Any) -> None:
    torch.set_num_threads(1)
    setting = Setting(share.model, share.micro_batch, share.precision)
    model = build_model(setting.settings)
    init_weights(model, 0)
    device = torch.device(share.device)
    recipe = Recipe(
        batch_images=share.micro_batch,
        micro_batch=share.micro_batch,
        total_steps=WARM + share.steps,
        schedule=ScheduleSettings(kind="cosine", warmup=Duration(1, "steps")),
        rule=Sgd(kind="sgd", peak_lr=1e-4),
        layer_decay=None,
        label_smoothing=0.0,
        seed=0,
        clip_norm=1.0,
        precision=share.precision,
    )
    batches = itertools.repeat(made_up(setting, device.type == "cuda"))
    begun = 0.0
    for done, _ in enumerate(train_steps(model.to(device), batches, recipe, device), 1):
        if done == WARM:
            barrier.wait(PATIENCE_S)
            begun = time.perf_counter()
    found.put(share.steps * share.micro_batch / (time.perf_counter() - begun))
