"""The training of one trial, step by step in plain torch, and the scoring of a model.

Warm-up and cosine decay, gradients clipped; what else there is says the recipe, by default the paper's (section 4.1 and
B.1.1). Knows no files and no protocol. Shapes: B images of a micro-batch, K classes.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.images.batch import Batch
from vitpipe.stages.training.measure.wrong import Wrong, surest, wrong_names
from vitpipe.stages.training.objective.losses import softmax
from vitpipe.stages.training.optim.rule import OptimizerSettings
from vitpipe.stages.training.optim.schedule import ScheduleSettings, lr_at
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer, set_rate
from vitpipe.stages.training.seeds import key


@dataclass(frozen=True)
class Recipe:
    """The numbers of one training; a run of the same recipe on the same batches takes the same steps."""

    batch_images: int
    micro_batch: int
    total_steps: int
    schedule: ScheduleSettings
    """Lengths in steps."""
    rule: OptimizerSettings
    """The update, and the peak of its rate."""
    layer_decay: float | None
    label_smoothing: float
    seed: int
    clip_norm: float | None
    precision: str


def train_steps(model: nn.Module, batches: Iterable[Batch], recipe: Recipe, device: torch.device) -> Iterator[float]:
    """Take the recipe's updates, yielding the mean loss of each; one that is not finite is yielded, not applied.

    `batches` are the micro-batches in order, `batch_images / micro_batch` of them to a step.
    """
    parameters, micro_batches = list(model.parameters()), iter(batches)
    optimizer = build_optimizer(model, recipe.rule, recipe.layer_decay, fused=False)
    model.train()
    for step in range(recipe.total_steps):
        optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=device)
        for number in range(recipe.batch_images // recipe.micro_batch):
            torch.manual_seed(key("dropout", recipe.seed, step, number))
            part = losses(model, next(micro_batches), device, recipe).sum() / recipe.batch_images
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm or math.inf)
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            yield math.nan
            return
        set_rate(optimizer, lr_at(step, recipe.total_steps, recipe.schedule, recipe.rule.peak_lr))
        optimizer.step()
        yield float(loss)


def losses(model: nn.Module, batch: Batch, device: torch.device, recipe: Recipe) -> Tensor:
    """Softmax cross-entropy of each image (B,), 0 for a masked one."""
    logits_BK = logits(model, batch, device, recipe.precision)
    losses_B = softmax(logits_BK, batch.labels.to(device), recipe.label_smoothing)
    return losses_B.mul(batch.weights_B.to(device))


def logits(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Tensor:
    """The model's outputs (B, K) in fp32; with bf16 its matrix products run in bfloat16."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits_BK: Tensor = model(batch.images_BCHW.to(device))
    return logits_BK.float()


@torch.inference_mode()
def score(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, precision: str
) -> tuple[float, float, tuple[Wrong, ...]]:
    """The share of images named right, their mean cross-entropy, every image once; and the surest mistakes."""
    model.eval()
    right, loss, count = 0, 0.0, 0
    wrong: tuple[Wrong, ...] = ()
    for batch in batches:
        logits_BK = logits(model, batch, device, precision)
        labels_B, counted_B = batch.labels.to(device), batch.weights_B.to(device) > 0
        right += int(((logits_BK.argmax(dim=1) == labels_B) & counted_B).sum())
        loss += float(F.cross_entropy(logits_BK, labels_B, reduction="none")[counted_B].double().sum())
        count += int(counted_B.sum())
        named = logits_BK[counted_B], labels_B[counted_B], batch.positions_B[counted_B.cpu()].tolist()
        wrong = surest([*wrong, *wrong_names(*named)])
    return right / count, loss / count, wrong
