"""What a stage tells a plan: what a node will cost, and what may be assumed of the machine. Looks at neither."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_serializer

from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import Settings, TaskResources


class Estimate(Settings):
    """What a node will cost, as far as it is known before it runs; None is 'not known yet'."""

    steps: int | None = None
    images: int | None = None
    """Images processed in all; for ingest, images read."""
    flops: float | None = None
    bytes: int | None = None
    """Bytes the node will leave in the store."""
    memory_bytes: int | None = None
    """Peak memory per worker (per GPU where there is one)."""
    hours: float | None = None
    splits: dict[str, int] | None = None
    """ShardSets only: images per split, for who comes after."""
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = Field(default=None, exclude=True)
    """In the order of their numbers, where they are known before anything runs: of images, and of a head."""
    unmatched: bool = Field(default=False, exclude=True)
    """Whether classes will be matched by name, and the names of one side are not known yet."""
    model: ModelSettings | None = None
    """Checkpoints and Weights: the architecture, for who comes after."""
    averaged: bool | None = None
    """Checkpoints: whether they will hold a running average of the weights."""
    recipe: dict[str, Any] | None = Field(default=None, exclude=True)
    """Checkpoints: the config, for who goes on from them."""
    notes: tuple[str, ...] = ()

    @field_serializer("model")
    def _whole(self, model: ModelSettings | None) -> dict[str, Any] | None:
        return model.model_dump(mode="json") if model else None  # in a dump without None, `classes: null` stays


class Known(Settings):
    """What an estimate may assume of the machine, which it cannot look at."""

    gpu_flops: float = 400e12
    """Sustained FLOP/s of one GPU in bf16 (about 40 % of an H100's 989 TFLOP/s)."""
    cpu_flops: float = 40e9
    """Sustained FLOP/s of one CPU core in fp32."""
    gpus: int = 0
    gpu_bytes: float = 80e9
    """Memory of one GPU."""

    def task_flops(self, resources: TaskResources) -> float:
        """Sustained FLOP/s of one task of a fan-out: of its part of a GPU, or of its cores where there is none."""
        if self.gpus:
            return self.gpu_flops * (resources.gpus_per_task or 1)
        return self.cpu_flops * resources.cpus_per_task


Given = Mapping[str, Sequence[Artifact | Estimate]]
"""A node's inputs as a plan knows them: committed, or only estimated."""
