"""What it costs to watch a pretraining: everything that rank 0 does for a step beside training it.

`python -m tests.benchmarks.watching`. Host seconds of a step's notes and numbers, beside a real step of ViT-B/16 on
this machine and the paper's step on H100s.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from inprocess import make_context

from vitpipe.infra.curves import LiveCurves
from vitpipe.infra.work import Rank
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.job import PretrainJob, ResolvedRecipe
from vitpipe.stages.pretrain.notes import Notes
from vitpipe.stages.pretrain.reporting import Reporter
from vitpipe.stages.training.measure.account import Account
from vitpipe.stages.training.measure.step_metrics import RankTimes, StepMetrics
from vitpipe.stages.vit.flops import train_flops_per_image
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.model import ViT

STEPS, ROUNDS = 2000, 5
RANKS = 64
MODEL = {"variant": "B/16", "image_px": 224, "classes": 1000}
RECIPE = {"model": MODEL, "batch_images": 4096, "total": "90 epochs"}


def main() -> None:
    torch.set_num_threads(1)
    plain, ledger = (min(noted(ledger) for _ in range(ROUNDS)) for ledger in (False, True))
    micro_step = min(step() for _ in range(3))
    paper = 4096 * train_flops_per_image(ModelSettings.model_validate(MODEL)) / (64 * 0.4 * 989e12)
    print(f"watching a step of {RANKS} ranks: {1e6 * plain:.0f} us, with a ledger of 4096 keys {1e6 * ledger:.0f} us")
    for name, seconds in (("ViT-B/16, 4 images, this CPU", micro_step), ("ViT-B/16, 4096 on 64 H100s, 40 %", paper)):
        print(f"  step of {name}: {seconds:.3f} s; {plain / seconds:.4%}, with the ledger {ledger / seconds:.4%}")


def noted(ledger: bool) -> float:
    """Seconds of a step's notes and numbers, mean over many; the second's reports are among them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ctx = make_context(folder, "backbone", PretrainResources())
        course = ResolvedRecipe(PretrainConfig.model_validate(RECIPE), PretrainResources(workers=RANKS), 1_281_167)
        shards = ShardSet(manifest_sha256="", num_classes=1000, splits={"train": 1_281_167})
        job = PretrainJob(course, ModelSettings.model_validate(MODEL), (shards,), None, ctx.task)
        keys = [f"{number:09d}" for number in range(4096)]
        ranks = [{"rank": number, "host": "node", "pid": number} for number in range(RANKS)]
        reporter = Reporter(job, Rank(0, RANKS, 0, 8, 0, "cpu"), ranks, lambda positions: keys)
        live = LiveCurves(ctx.out.node, ctx.out.attempt)
        notes = Notes(folder, 4096, lambda positions: keys, Account(time.time()), live, ledger=ledger)
        facts = StepMetrics(1, 4096, 6.9, 1e-3, 1.0, 0.3, (RankTimes(0.1, 0.001),) * RANKS)
        start = time.process_time()
        for number in range(STEPS):
            one = replace(facts, step=number + 1, samples_seen=4096 * (number + 1))
            notes.step(one)
            reporter.step(one, notes.account)
        return (time.process_time() - start) / STEPS


def step() -> float:
    """CPU seconds of one forward and backward pass of four images."""
    model = ViT(ModelSettings.model_validate(MODEL))
    init_weights(model, seed=0)
    images, labels = torch.rand(4, 3, 224, 224) * 2 - 1, torch.arange(4)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
