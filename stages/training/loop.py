"""The step loop: batches in, facts about finished steps out, one step late so that no device is waited for.

Knows no files, no checkpoints and no stage: its caller acts on facts, and on settled ones it may save.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from infra.errors import LeaseLost, StageError
from stages.images.batch import Batch
from stages.training.engine import Engine
from stages.training.late import Late
from stages.training.losses import Loss
from stages.training.seeds import key


@dataclass(frozen=True)
class Course:
    """From where to where, and how."""

    seed: int
    first_step: int
    """Updates made before."""
    total_steps: int
    lr: Callable[[int], float]
    """Learning rate of the update that follows so many finished ones."""
    settle_at: Callable[[int], bool]
    """Whether to pause after so many finished updates, for a checkpoint. The same answer on every rank."""
    stopping: Callable[[], str | None]
    """Why this rank should end, or None. May raise LeaseLost."""


@dataclass(frozen=True)
class Facts:
    """One finished step, the same on every rank but for the times."""

    step: int
    """Updates finished, this one included."""
    samples_seen: int
    loss: float
    """Mean over the global batch, before the update."""
    lr: float
    grad_norm: float
    seconds: float
    data_wait_seconds: float
    settled: bool = False
    """Nothing was computed since: the weights are those after `step`."""
    stop: str | None = None
    """All ranks end here; only with a settled step."""


def train(engine: Engine, batches: Iterator[Batch], loss: Loss, course: Course) -> Iterator[Facts]:
    """Make the steps of a course; the facts of each, in order.

    `batches` are this rank's real micro-batches from `course.first_step` on, as `Deal.ranges` numbers them.
    Errors, raised by all ranks at the same step: StageError for a loss or gradient that is not finite, naming the
    images; LeaseLost when a rank saw that another driver holds the run. The weights are then not to be saved.
    """
    before: _Step | None = None
    for step in range(course.first_step, course.total_steps):
        start = time.monotonic()
        made = _make(engine, batches, loss, course, step)
        facts = before.read() if before else None
        made.seconds = time.monotonic() - start
        stop = facts.stop if facts else None
        if facts is not None:
            yield replace(facts, stop=None)
        before = made
        if stop or step + 1 == course.total_steps or course.settle_at(step + 1):
            last = made.read()
            made.seconds = time.monotonic() - start
            last = replace(last, settled=True, stop=stop or last.stop)
            yield last
            before = None
            if last.stop:
                return


@dataclass
class _Step:
    """A step whose numbers are on their way."""

    engine: Engine
    step: int
    lr: float
    late: Late
    asked: str | None
    data_wait_seconds: float
    seconds: float = 0.0

    def read(self) -> Facts:
        (stop, lost, bad, *losses), (norm,) = self.late.read()
        deal = self.engine.deal
        if lost:
            raise LeaseLost("go on training", "another driver holds the run", "let it finish, or stop it first")
        if bad or not math.isfinite(sum(losses)):
            raise self._not_finite(losses, norm)
        return Facts(
            step=self.step + 1, samples_seen=(self.step + 1) * deal.batch_images,
            loss=sum(losses) / deal.batch_images, lr=self.lr, grad_norm=norm, seconds=self.seconds,
            data_wait_seconds=self.data_wait_seconds,
            stop=(self.asked or "another rank was asked to end") if stop else None,
        )  # fmt: skip

    def _not_finite(self, losses: list[float], norm: float) -> StageError:
        deal = self.engine.deal
        guilty = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
        starts = [deal.start(self.step, number) for number in guilty or range(deal.num_micro)]
        spans = ", ".join(f"{start}..{start + deal.micro_batch - 1}" for start in starts[:8])
        more = f" and {len(starts) - 8} more micro-batches" if len(starts) > 8 else ""
        what = f"a loss of {losses[guilty[0]]}" if guilty else f"a gradient norm of {norm} with finite losses"
        return StageError(
            f"make step {self.step + 1}", f"{what} for images at positions {spans}{more} of the sample order",
            "lower optimizer.peak_lr, lengthen the warm-up or set clip_norm; the last good checkpoint stands",
        )  # fmt: skip


def _make(engine: Engine, batches: Iterator[Batch], loss: Loss, course: Course, step: int) -> _Step:
    deal, device = engine.deal, engine.device
    sums = torch.zeros(deal.num_micro, dtype=torch.float64, device=device)
    waited, numbers = 0.0, deal.numbers()
    for number in numbers:
        torch.manual_seed(key("dropout", course.seed, step, number))
        if deal.is_padding(number):
            engine.pad()
        else:
            start = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - start
            hints = (hint.to(device, non_blocking=True) for hint in batch.hints)
            outputs = engine.forward(batch.images_BCHW.to(device, non_blocking=True), *hints)
            losses_B = loss(outputs, batch.labels.to(device, non_blocking=True))
            sums[number] = engine.accumulate(losses_B, batch.weights_B.to(device, non_blocking=True))
        if number != numbers[-1]:
            engine.end_pass()
    lr = course.lr(step)
    norm = engine.step(lr).double()
    asked, lost = _ask(course)
    flags = [torch.full((1,), float(flag), dtype=torch.float64, device=device) for flag in (asked is not None, lost)]
    summed = torch.cat([*flags, (~torch.isfinite(norm)).double().reshape(1), sums])
    return _Step(engine, step, lr, Late(summed, norm.reshape(1)), asked, waited)


def _ask(course: Course) -> tuple[str | None, bool]:
    """Ask this rank's fence; a lost lease becomes a flag, so that no rank leaves the others in a collective."""
    try:
        return course.stopping(), False
    except LeaseLost:
        return None, True
