"""A ViT of 2 layers on made-up images, trained by our loop on gloo ranks or by plain torch: the same mathematics."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from vitpipe.infra.work import Rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import Duration
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.loop import LoopPlan, train
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.optim.rule import OptimizerSettings
from vitpipe.stages.training.optim.rules.adamw import AdamW
from vitpipe.stages.training.optim.schedule import ScheduleSettings, lr_at
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer, set_rate
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.init import init_weights

MODEL = ModelSettings(
    variant=Sizes(layers=2, width=32, mlp=64, heads=2, patch_px=8), image_px=32, classes=5, dropout=0.1
)
NO_DROPOUT = MODEL.model_copy(update={"dropout": 0.0})
OPTIMIZER = AdamW(peak_lr=3e-3, weight_decay=0.1, clip_norm=1.0)
SOFTMAX = ObjectiveSettings()
SCHEDULE = ScheduleSettings(warmup=Duration(2, "steps"))
BATCH, MICRO, STEPS = 20, 4, 6  # 5 micro-batches: two ranks pad the last round


def model(settings: ModelSettings = MODEL) -> Model:
    made = build_model(settings)
    init_weights(made, seed=1)
    return made.train()


def images(start: int, count: int) -> Batch:
    """Made from their positions alone; the label shows in the brightness, so that there is something to learn."""
    positions_B = torch.arange(start, start + count)
    labels_B = positions_B * 7 % 5
    generator = torch.Generator().manual_seed(start)
    noise = torch.randint(0, 128, (count, 3, 32, 32), generator=generator)
    return Batch((noise + 25 * labels_B[:, None, None, None]).to(torch.uint8), labels_B, torch.ones(count), positions_B)


def engine(
    rank: Rank,
    zero: int,
    precision: str = "fp32",
    settings: ModelSettings = MODEL,
    batch: int = BATCH,
    ema_decay: float | None = None,
    offload: bool = False,
    rule: OptimizerSettings = OPTIMIZER,
    layer_decay: float | None = None,
) -> Engine:
    vit = model(settings)
    sampler = DataParallelSampler(batch, MICRO, rank.rank, rank.world_size)
    told = EngineSettings(zero, precision, rule.clip_norm, settings.image_px, ema_decay, offload, layer_decay)
    return Engine(vit, rule, told, sampler, rank)


def course(
    first_step: int = 0,
    total_steps: int = STEPS,
    settle_at: Callable[[int], bool] = lambda step: False,
    stopping: Callable[[], str | None] = lambda: None,
) -> LoopPlan:
    return LoopPlan(
        seed=3,
        first_step=first_step,
        total_steps=total_steps,
        lr=lambda step: lr_at(step, STEPS, SCHEDULE, OPTIMIZER.peak_lr),
        settle_at=settle_at,
        stopping=stopping,
    )


def steps(
    made: Engine,
    way: LoopPlan,
    read: Callable[[int, int], Batch] = images,
    objective: ObjectiveSettings = SOFTMAX,
) -> Iterator[StepMetrics]:
    batches = (read(start, count) for start, count in made.sampler.ranges(way.first_step, way.total_steps))
    return train(made, batches, loss_fn(objective), way)


def plain_torch(settings: ModelSettings = NO_DROPOUT, layer_decay: float | None = None) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step: one process, whole batches, no DeepSpeed."""
    return plain_curve(model(settings), images, SOFTMAX, layer_decay)


def plain_curve(
    vit: nn.Module,
    read: Callable[[int, int], Batch],
    objective: ObjectiveSettings,
    layer_decay: float | None = None,
) -> list[tuple[float, float]]:
    """As `plain_torch`, of any model."""
    optimizer, loss, curve = build_optimizer(vit, OPTIMIZER, layer_decay), loss_fn(objective), []
    for step in range(STEPS):
        parts = [read(step * BATCH + start, MICRO) for start in range(0, BATCH, MICRO)]
        hints = (torch.cat(together) for together in zip(*(part.hints for part in parts), strict=True))
        outputs = vit(torch.cat([part.images_BCHW for part in parts]), *hints)
        mean = loss(outputs, torch.cat([part.labels for part in parts])).mean()
        optimizer.zero_grad()
        mean.backward()
        norm = torch.nn.utils.clip_grad_norm_(vit.parameters(), OPTIMIZER.clip_norm or 0.0)
        set_rate(optimizer, lr_at(step, STEPS, SCHEDULE, OPTIMIZER.peak_lr))
        optimizer.step()
        curve.append((mean.item(), norm.item()))
    return curve


def compare_curves(
    folder: Path, zero: int, precision: str, plain: Iterable[tuple[float, float]], norms_within: float = 2e-5
) -> None:
    """Compare losses and gradient norms, left in files by two ranks, with plain torch's.

    fp32: another order of sums of at most 340 terms, over 6 steps of Adam, as in test_parallel_equals_serial.
    bf16 keeps 8 bits, 4e-3 relative: a loss is that near, gradient norms a few times less so.
    """
    first, second = (json.loads((folder / f"{zero}-{precision}-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    wide, wider = (2e-5, norms_within) if precision == "fp32" else (2 * 4e-3, 10 * 4e-3)
    for (loss, norm), (wanted_loss, wanted_norm) in zip(first, plain, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=wide)
        assert norm == pytest.approx(wanted_norm, rel=wider)
