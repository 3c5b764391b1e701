"""The step loop: batches in, metrics of finished steps out, one step late so that no device is waited for.

A step's numbers are read, all at once, when the next one's passes are on their way and before it updates anything: the
device has work meanwhile, and what the host counts of updates is true again when it is needed.

Knows no files, no checkpoints and no stage: its caller acts on metrics, and after a settled step it may save.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
from torch import Tensor

from vitpipe.infra.errors import LeaseLost
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.training.async_all_reduce import AsyncAllReduce
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure.forward_timer import ForwardTimer
from vitpipe.stages.training.measure.step_metrics import RankTimes, StepMetrics
from vitpipe.stages.training.objective.losses import Loss
from vitpipe.stages.training.seeds import key
from vitpipe.stages.training.skipping import Skipped, Skips


@dataclass(frozen=True)
class LoopPlan:
    """Which steps to make, at which learning rates, and when to pause or end."""

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
    skips: Skips = field(default_factory=Skips)
    """Steps that were left out before `first_step`."""


def train(engine: Engine, batches: Iterator[Batch], loss: Loss, plan: LoopPlan) -> Iterator[StepMetrics]:
    """Make the steps of a plan and yield the metrics of each, in order.

    `batches` are this rank's real micro-batches from `plan.first_step` on, as `DataParallelSampler.ranges` numbers
    them. A step whose loss or gradient is not finite updates nothing and says so in its metrics.
    Errors, raised by all ranks at the same step: StageError when too many steps were such; LeaseLost when a rank saw
    that another driver holds the run. The weights are then not to be saved.
    """
    before: _Step | None = None
    timer, skips = ForwardTimer(engine.device), plan.skips
    for step in range(plan.first_step, plan.total_steps):
        start = time.monotonic()
        with _noted(step):
            passed = _pass(engine, batches, loss, plan, step, timer)
        metrics = before.read() if before else None
        with _noted(step):
            made = _update(engine, plan, step, timer, passed)
        made.seconds = time.monotonic() - start
        stop = metrics.stop if metrics else None
        if metrics is not None:
            skips = skips.after(metrics.step, metrics.skipped)
            yield replace(metrics, stop=None)
        before = made
        if stop or step + 1 == plan.total_steps or plan.settle_at(step + 1):
            last = made.read()
            skips = skips.after(last.step, last.skipped)
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
    reduced: AsyncAllReduce
    asked: str | None
    losses: dict[int, Tensor] = field(repr=False)
    """(B,) of each micro-batch of this rank by its number, on the device."""
    seconds: float = 0.0

    def read(self) -> StepMetrics:
        with _noted(self.step):  # a device says late what went wrong
            return self._read()

    def _read(self) -> StepMetrics:
        (stop, lost, bad, *numbers), (norm,) = self.reduced.read()
        self.engine.learn(applied=not bad)
        sampler = self.engine.sampler
        losses, times = numbers[: sampler.num_micro], numbers[sampler.num_micro :]
        if lost:
            raise LeaseLost("go on training", "another driver holds the run", "let it finish, or stop it first")
        loss = sum(losses) / sampler.batch_images
        return StepMetrics(
            step=self.step + 1,
            samples_seen=(self.step + 1) * sampler.batch_images,
            loss=loss,
            lr=self.lr,
            grad_norm=norm,
            seconds=self.seconds,
            rank_times=tuple(RankTimes(*pair) for pair in zip(times[::2], times[1::2], strict=True)),
            skipped=self._skipped(loss, norm) if bad or not math.isfinite(loss) else None,
            stop=(self.asked or "another rank was asked to end") if stop else None,
        )

    def _skipped(self, loss: float, norm: float) -> Skipped:
        """Ask all ranks which images they were; all have read the same numbers, so all ask."""
        sampler = self.engine.sampler
        guilty = [
            sampler.start(self.step, number) + place
            for number, losses_B in self.losses.items()
            for place, fine in enumerate(losses_B.isfinite().tolist())
            if not fine
        ]
        found: list[list[int]] = [[]] * sampler.world_size
        dist.all_gather_object(found, guilty)
        positions = tuple(sorted(position for rank in found for position in rank))
        if positions:
            return Skipped(f"a loss of {loss}", positions)
        batch = range(self.step * sampler.batch_images, (self.step + 1) * sampler.batch_images)
        return Skipped(f"a gradient norm of {norm} with finite losses", tuple(batch))


@dataclass
class _Passed:
    """What a step's forward and backward passes left."""

    sums: Tensor
    """fp64, the losses of each micro-batch of the step; 0 for those of other ranks."""
    losses: dict[int, Tensor]
    waited_s: float


def _pass(
    engine: Engine, batches: Iterator[Batch], loss: Loss, plan: LoopPlan, step: int, timer: ForwardTimer
) -> _Passed:
    sampler, device = engine.sampler, engine.device
    sums = torch.zeros(sampler.num_micro, dtype=torch.float64, device=device)
    waited, numbers, losses = 0.0, sampler.numbers(), {}
    for number in numbers:
        torch.manual_seed(key("dropout", plan.seed, step, number))
        if sampler.is_padding(number):
            engine.pad()
        else:
            start = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - start
            hints = (hint.to(device, non_blocking=True) for hint in batch.hints)
            with timer.running():
                outputs = engine.forward(batch.images_BCHW.to(device, non_blocking=True), *hints)
            losses_B = loss(outputs, batch.labels.to(device, non_blocking=True))
            sums[number] = engine.accumulate(losses_B, batch.weights_B.to(device, non_blocking=True))
            losses[number] = losses_B.detach()
        if number != numbers[-1]:
            engine.end_pass()
    return _Passed(sums, losses, waited)


def _update(engine: Engine, plan: LoopPlan, step: int, timer: ForwardTimer, passed: _Passed) -> _Step:
    sampler, lr = engine.sampler, plan.lr(step)
    norm = engine.step(lr).double()
    asked, lost = _ask(plan)
    flags = [float(asked is not None), float(lost)]
    times = [0.0] * (2 * sampler.world_size)
    times[2 * sampler.rank : 2 * sampler.rank + 2] = timer.lap(), passed.waited_s
    own = torch.tensor([*flags, *times], dtype=torch.float64).to(engine.device, non_blocking=True)
    bad = (~torch.isfinite(norm)).double().reshape(1)
    summed = torch.cat([own[:2], bad, passed.sums, own[2:]])
    return _Step(engine, step, lr, AsyncAllReduce(summed, norm.reshape(1)), asked, passed.losses)


@contextmanager
def _noted(step: int) -> Iterator[None]:
    """Add the step's number to any error: a bug comes back at the same step, bad luck does not."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in step {step + 1}")
        raise


def _ask(plan: LoopPlan) -> tuple[str | None, bool]:
    """Ask this rank's fence; a lost lease becomes a flag, so that no rank leaves the others in a collective."""
    try:
        return plan.stopping(), False
    except LeaseLost:
        return None, True
