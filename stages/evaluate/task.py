"""One evaluation on its way to a machine. No torch."""

from dataclasses import dataclass
from pathlib import Path

from stages.artifacts import Score, ShardSet, Weights
from stages.contract import TaskContext
from stages.evaluate.config import EvaluateConfig


@dataclass(frozen=True)
class EvaluateTask:
    """Everything an evaluation may see."""

    config: EvaluateConfig
    data: ShardSet
    weights: Weights | Score | None
    seeds: tuple[int, ...]
    """Draws of training images to score; an untrained model is initialised by the one seed of its task."""
    batch_images: int
    cpus: int
    context: TaskContext

    def __str__(self) -> str:
        return "-".join([self.config.method, self.config.features, *(f"seed{seed}" for seed in self.seeds)])

    @property
    def cache(self) -> Path:
        """Local copies of shards, shared by all tasks on this machine."""
        return self.context.scratch / "shards"
