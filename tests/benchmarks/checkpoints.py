"""What a checkpoint costs a training that goes on, and what our loop costs beside DeepSpeed's and torch's bare ones.

    PYTHONPATH=.:tests python -m tests.benchmarks.checkpoints [VARIANT [FOLDER]]

One rank on a CPU. The pairs are interleaved in one process; figures are minima. An engine of B/16 and what is compared
with it need 4 GB of memory and 3 GB of disk.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from inprocess import CollectedEvents, HeldFence, InProcessCluster
from torch import Tensor

from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Out
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.training.checkpoint.checkpoints import Checkpoints
from vitpipe.stages.training.checkpoint.committed_steps import Keep
from vitpipe.stages.training.checkpoint.snapshot import Snapshot
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.engine import Engine, EngineSettings, deepspeed_config, forget_gang
from vitpipe.stages.training.loop import LoopPlan, train
from vitpipe.stages.training.measure.metrics_log import MetricsLog, fields_of, line
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.optim.rules.adamw import AdamW
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.init import init_weights

ROUNDS = 6
BATCH = 4
OPTIMIZER = AdamW(clip_norm=1.0)


def main(variant: str = "B/16", folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        resources = PretrainResources()
        InProcessCluster().gang(partial(stall, variant, Path(made)), resources=resources)
        InProcessCluster().gang(partial(loops, "S/16", Path(made)), resources=resources)


def stall(variant: str, folder: Path, rank: Rank) -> None:
    """The copy of a state beside one copy of as many bytes, and beside a synchronous save."""
    engine = _engine(variant, rank, zero=1)
    snapshot = Snapshot(engine, 0)
    live = [tensor for _, tensor in snapshot._pairs]
    total = sum(tensor.nbytes for tensor in live)
    source, target = torch.ones(total // 4), torch.zeros(total // 4)
    out = Out(open_store(f"file://{folder}/store"), "a1", HeldFence(folder), b"{}")
    checkpoints = Checkpoints(engine, out, folder, CollectedEvents(folder / "events"), rank, Keep(1))
    steps = iter(range(1, 1000))

    def save() -> None:
        checkpoints.save(next(steps), 0, {})

    def synchronous() -> None:
        with (folder / "state.pt").open("wb") as file:
            torch.save(live, file)
            file.flush()
            os.fsync(file.fileno())

    found = _interleaved(
        {"copy": lambda: target.copy_(source), "take": lambda: snapshot.take(0), "save": save, "sync": synchronous},
        after={"save": checkpoints.settle},
    )
    print(f"\nViT-{variant}, ZeRO 1, fp32: {total / 1e9:.2f} GB of state, {len(live)} runs; wall, minimum of {ROUNDS}")
    for name, what in (("copy", "one copy into a reused buffer"), ("take", "the same of the state, run by run"),
                       ("save", "training waits for a checkpoint"), ("sync", "torch.save and fsync")):  # fmt: skip
        wall = found[name][1]
        print(f"  {wall:7.3f} s  {what}: {wall / found['copy'][1]:.2f} of the copy, {total / wall / 1e9:.1f} GB/s")
    print(f"  a synchronous save makes training wait {found['sync'][1] / found['save'][1]:.0f} times as long")


def loops(variant: str, folder: Path, rank: Rank) -> None:
    """One step of our loop, with its metrics and its questions, of DeepSpeed bare, and of torch bare."""
    batch = Batch(
        torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8), torch.arange(BATCH), torch.ones(BATCH),
        torch.arange(BATCH),
    )  # fmt: skip
    found = _interleaved({
        "ours": partial(next, _ours(variant, folder, rank, batch)),
        "deepspeed": _deepspeed(variant, rank, batch),
        "torch": _torch(variant, batch),
    })  # fmt: skip
    print(f"\nViT-{variant}, batch {BATCH}, ZeRO 1, fp32: a step, CPU seconds (wall), minimum of {ROUNDS}")
    for name, (cpu, wall) in found.items():
        of = f"{cpu / found['deepspeed'][0]:.3f} of DeepSpeed's, {cpu / found['torch'][0]:.3f} of torch's"
        print(f"  {cpu:6.3f} s ({wall:.3f})  {name}: {of}")


def _ours(variant: str, folder: Path, rank: Rank, batch: Batch) -> Iterator[StepMetrics]:
    engine, log = _engine(variant, rank, zero=1), MetricsLog(folder / "metrics.jsonl")
    course = LoopPlan(
        seed=0, first_step=0, total_steps=1000, lr=lambda step: 1e-3, settle_at=lambda step: False,
        stopping=HeldFence(folder).stopping,
    )  # fmt: skip
    for facts in train(engine, iter(lambda: batch, None), loss_fn(ObjectiveSettings()), course):
        log.add(line(fields_of(facts)))
        yield facts


def _deepspeed(variant: str, rank: Rank, batch: Batch) -> Callable[[], None]:
    import deepspeed  # on a rank only

    forget_gang()  # the other benchmark's
    vit = _model(variant)
    settings = EngineSettings(1, "fp32", OPTIMIZER.clip_norm, 224)
    config = deepspeed_config(settings, DataParallelSampler(BATCH, BATCH), torch.device("cpu"))
    engine, *_ = deepspeed.initialize(model=vit, optimizer=build_optimizer(vit, OPTIMIZER), config=config)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(engine(batch.images_BCHW), batch.labels)
        engine.backward(loss)
        engine.step()
        loss.item()

    return step


def _torch(variant: str, batch: Batch) -> Callable[[], None]:
    vit = _model(variant)
    optimizer = build_optimizer(vit, OPTIMIZER)

    def step() -> None:
        loss: Tensor = torch.nn.functional.cross_entropy(vit(batch.images_BCHW), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vit.parameters(), OPTIMIZER.clip_norm or 0.0)
        optimizer.step()
        loss.item()

    return step


def _engine(variant: str, rank: Rank, zero: int) -> Engine:
    vit = _model(variant)
    settings = EngineSettings(zero, "fp32", OPTIMIZER.clip_norm, 224)
    return Engine(vit, OPTIMIZER, settings, DataParallelSampler(BATCH, BATCH), rank)


def _model(variant: str) -> Model:
    torch.set_num_threads(1)
    vit = build_model(ModelSettings(variant=variant, image_px=224, classes=1000))
    init_weights(vit, seed=0)
    return vit.train()


def _interleaved(
    work: dict[str, Callable[[], object]], after: dict[str, Callable[[], object]] | None = None
) -> dict[str, tuple[float, float]]:
    """Least (CPU, wall) seconds of each, in turns; one turn before does not count. `after` is not measured."""
    best = {name: (float("inf"), float("inf")) for name in work}
    for turn in range(ROUNDS + 1):
        for name, run in work.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
            if after and name in after:
                after[name]()
    return best


if __name__ == "__main__":
    main(*sys.argv[1:])
