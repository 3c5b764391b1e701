"""Losses of a small training on the device, by our engine, beside plain torch's on the CPU: equal within rounding.

The same images, weights and updates, without dropout, whose masks a GPU draws otherwise.
"""

import torch

from vitpipe.infra.work import Rank
from vitpipe.stages.gpu_check.findings import Cell, Findings, Way
from vitpipe.stages.gpu_check.ranks import one_rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.loop import LoopPlan, train
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.optim.rules.adamw import AdamW
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer, set_rate
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.init import init_weights

SIZES = Sizes(layers=2, width=128, mlp=256, heads=2, patch_px=8)
MODEL = ModelSettings(variant=SIZES, image_px=32, classes=5)
RULE = AdamW(peak_lr=3e-3, weight_decay=0.1, clip_norm=1.0)
BATCH, MICRO, STEPS = 20, 4, 6
TERMS = 512
"""The longest sum of a number: 340 terms, the batch's patches, rounded up to a power of two."""
WIDE = {"fp32": TERMS * 2.0**-24, "bf16": 2 * 2.0**-8}
"""Relative difference of a loss that rounding explains. fp32: a sum of so many terms in another order, each rounded to
24 bits. bf16: weights and activations of 8 bits, a loss that near, twice as the weights come to differ."""
NORMS = {"fp32": 1.0, "bf16": 5.0}
"""A gradient's norm in bf16 is a few times less near than a loss."""
Curve = list[tuple[float, float]]
"""Loss and gradient norm of each step."""


def run(way: Way, findings: Findings) -> None:
    """Compare every ZeRO stage and precision that one rank can train with, most used first."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    steps = 3 if way.shrunk else STEPS
    wanted = plain_curve(steps)
    ways = [(1, "fp32"), (1, "bf16")] if way.shrunk else [(1, "bf16"), (1, "fp32"), (0, "fp32"), (0, "bf16")]
    ways += [] if way.shrunk else [(2, "bf16"), (3, "bf16"), (2, "fp32"), (3, "fp32")]
    with one_rank(way.device) as rank:
        for zero, precision in ways:
            if findings.left() < 10 and zero > 1:
                findings.left_out(f"ZeRO {zero} in {precision}")
                continue
            compare(
                findings, f"ZeRO {zero}, {precision}", engine_curve(rank, zero, precision, steps), wanted, precision
            )
    findings.note(
        f"{steps} steps; the CPU's are plain torch's in fp32; a fault of rounding alone stays below `at most`"
    )


def compare(findings: Findings, name: str, found: Curve, wanted: Curve, precision: str) -> None:
    """Add a row: how far the curves are apart, relative to the CPU's, and how far they may be."""
    loss, norm = (
        max(_apart(one[part], other[part]) for one, other in zip(found, wanted, strict=True)) for part in (0, 1)
    )
    most = WIDE[precision] * len(wanted) / STEPS if precision == "fp32" else WIDE[precision]
    most_norm = most * NORMS[precision]
    cells: dict[str, Cell] = {
        "way": name,
        "last loss": f"{found[-1][0]:.6f}",
        "of the CPU": f"{wanted[-1][0]:.6f}",
        "loss apart": loss,
        "at most": most,
        "norm apart": norm,
        "norm at most": most_norm,
    }
    findings.row(cells, ok=loss <= most and norm <= most_norm)


def _apart(one: float, other: float) -> float:
    return abs(one - other) / abs(other) if one == one else float("inf")


def plain_curve(steps: int) -> Curve:
    """Train in plain torch on the CPU, whole batches in fp32."""
    vit, loss = _model(), loss_fn(ObjectiveSettings())
    optimizer, curve = build_optimizer(vit, RULE), Curve()
    for step in range(steps):
        batch = images(step * BATCH, BATCH)
        mean = loss(vit(batch.images_BCHW), batch.labels).mean()
        optimizer.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(vit.parameters(), RULE.clip_norm or 0.0)
        set_rate(optimizer, rate(step))
        optimizer.step()
        curve.append((mean.item(), norm.item()))
    return curve


def engine_curve(rank: Rank, zero: int, precision: str, steps: int) -> Curve:
    """Train by our engine and loop on the rank's device, in micro-batches."""
    sampler = DataParallelSampler(BATCH, MICRO, rank.rank, rank.world_size)
    told = EngineSettings(zero, precision, RULE.clip_norm, MODEL.image_px)
    engine = Engine(_model().to(rank.device), RULE, told, sampler, rank)
    plan = LoopPlan(
        seed=3,
        first_step=0,
        total_steps=steps,
        lr=rate,
        settle_at=lambda step: False,
        stopping=lambda: None,
    )
    batches = (images(start, count) for start, count in sampler.ranges(0, steps))
    return [(made.loss, made.grad_norm) for made in train(engine, batches, loss_fn(ObjectiveSettings()), plan)]


def rate(step: int) -> float:
    """Warm up over two steps."""
    return RULE.peak_lr * min(1.0, step / 2)


def images(start: int, count: int) -> Batch:
    """Make images from their positions alone; the label shows in the brightness, so that it can be learnt."""
    positions_B = torch.arange(start, start + count)
    labels_B = positions_B * 7 % 5
    noise = [
        torch.randint(0, 128, (3, 32, 32), generator=torch.Generator().manual_seed(at)) for at in positions_B.tolist()
    ]
    shown = torch.stack(noise) + 25 * labels_B[:, None, None, None]
    return Batch(shown.to(torch.uint8), labels_B, torch.ones(count), positions_B)


def _model() -> Model:
    made = build_model(MODEL)
    init_weights(made, seed=1)
    return made.train()
