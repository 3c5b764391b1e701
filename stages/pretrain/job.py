"""One pretraining, resolved: steps, schedule and model, as plan, driver and ranks share them. No torch."""

import time
from dataclasses import dataclass, field

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Checkpoint, Score, ShardSet, Weights
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, check
from vitpipe.stages.settings import micro_batch_of
from vitpipe.stages.training.optim.schedule import ScheduleSettings, in_steps, lr_at

SPLIT = "train"
FINISHED = "finished.json"
"""What rank 0 leaves in its attempt for the driver: where the last step lies and what it came to."""
MAX_CHECKPOINT_STEPS = 1000


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe on so many images: its length and schedule in steps, and what follows which step."""

    config: PretrainConfig
    resources: PretrainResources
    epoch_images: int
    """Images of the train split."""
    total_steps: int = field(init=False)
    schedule: ScheduleSettings = field(init=False)
    """With all lengths in steps."""

    def __post_init__(self) -> None:
        """UsageError for a run of no step, and for sections that do not fit each other."""
        config, images, asked = self.config, self.epoch_images, f"pretrain for {self.config.total}"
        wrong = check(config, self.resources)
        steps = config.total.steps(config.batch_images, images)
        if steps < 1:
            wrong.append(f"{images} images an epoch make less than one step of batch_images {config.batch_images}")
        if wrong:
            raise UsageError(asked, f"its fields do not fit: {'; '.join(wrong)}", "change these fields of the node")
        try:
            schedule = in_steps(config.schedule, steps, config.batch_images, images)
        except ValueError as error:
            raise UsageError(asked, str(error), "shorten config.schedule or lengthen config.total") from error
        object.__setattr__(self, "total_steps", steps)
        object.__setattr__(self, "schedule", schedule)

    @property
    def micro_batch(self) -> int:
        """Images of one forward pass."""
        return micro_batch_of(self.config.batch_images, self.resources.micro_batch)

    @property
    def checkpoint_steps(self) -> int:
        """Steps between checkpoints."""
        every = self.resources.checkpoint_every
        if every is None:
            return max(1, min(MAX_CHECKPOINT_STEPS, self.total_steps // 10))
        return max(1, every.steps(self.config.batch_images, self.epoch_images))

    @property
    def milestone_steps(self) -> int | None:
        """Steps between checkpoints that are kept for good, if any are."""
        every = self.resources.milestone_every
        return None if every is None else max(1, every.steps(self.config.batch_images, self.epoch_images))

    def is_saved_after(self, step: int) -> bool:
        """Whether a checkpoint follows the update `step`; one always follows the last."""
        return step == self.next_save(step - 1)

    def next_save(self, step: int) -> int:
        """The first update after `step` that a checkpoint follows."""
        lengths = filter(None, (self.checkpoint_steps, self.milestone_steps))
        return min([self.total_steps, *((step // length + 1) * length for length in lengths)])

    def is_evaluated_after(self, step: int) -> bool:
        """Whether the model is measured after so many updates."""
        if self.config.evaluate is None:
            return False
        every = max(1, self.config.evaluate.every.steps(self.config.batch_images, self.epoch_images))
        return step % every == 0 or step == self.total_steps

    def lr(self, step: int) -> float:
        """Learning rate of the update after `step` finished ones."""
        return lr_at(step, self.total_steps, self.schedule, self.config.optimizer.peak_lr)


@dataclass(frozen=True)
class Watched:
    """A data set that the model's head is tested on while training."""

    shards: ShardSet
    outputs: tuple[int, ...]
    """Which output of the head each of its classes is."""


@dataclass(frozen=True)
class PretrainJob:
    """What every rank is given. Picklable."""

    recipe: ResolvedRecipe
    model: ModelSettings
    shards: tuple[ShardSet, ...]
    """One, or several that `config.mix` mixes."""
    init: Weights | Score | None
    task: TaskContext
    probes: tuple[ShardSet, ...] = ()
    """Scored by few-shot regression while training."""
    watch: tuple[Watched, ...] = ()
    """Scored by the model's own head while training."""
    continued: Checkpoint | None = None
    """Where another training ended that this one goes on with."""
    begun: float = field(default_factory=time.time)
    """Unix time at which the driver began with it."""


def model_of(config: PretrainConfig, num_classes: int) -> ModelSettings:
    """The architecture with its classes, 0 without labels. UsageError for a head too small for them."""
    if not config.objective.labelled:
        return config.model.model_copy(update={"classes": 0})
    classes = config.model.classes or num_classes
    if classes < num_classes:
        found = f"model.classes is {classes}, the shards hold labels 0..{num_classes - 1}"
        raise UsageError("pretrain on these shards", found, "leave model.classes out, or raise it")
    return config.model.model_copy(update={"classes": classes})
