"""One rank's training as a pretraining builds it, on images that lie ready: what the sections time and count."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitpipe.infra.work import Rank
from vitpipe.stages.gpu_check.ranks import doors
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.job import PretrainJob, ResolvedRecipe, model_of
from vitpipe.stages.pretrain.rank import build_engine
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.loop import LoopPlan, train
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.variants import Sizes

CLASSES = 1000
TINY = Sizes(layers=2, width=32, mlp=64, heads=2, patch_px=8)
"""A model for a shrunk check, at 16 px."""


@dataclass(frozen=True)
class BenchModel:
    """A model that is measured, by the name that tables have for it."""

    name: str
    variant: str | Sizes
    image_px: int = 224
    timm: str | None = None
    """timm's name for the same architecture."""

    def section(self, **more: Any) -> dict[str, Any]:
        """Spell it as a config does."""
        return {"variant": self.variant, "image_px": self.image_px, "classes": CLASSES, **more}


B16 = BenchModel("B/16", "B/16", timm="vit_base_patch16_224")
L16 = BenchModel("L/16", "L/16", timm="vit_large_patch16_224")
H14 = BenchModel("H/14", "H/14", timm="vit_huge_patch14_224")
SHRUNK = BenchModel("tiny", TINY, 16)


@dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    model: BenchModel
    micro_batch: int
    precision: str = "bf16"
    zero: int = 1
    compiled: bool = False
    stochastic_depth: float = 0.0

    @property
    def config(self) -> PretrainConfig:
        """The recipe: AdamW with clipping, softmax over 1,000 classes, one micro-batch a step."""
        told = {
            "model": self.model.section(stochastic_depth=self.stochastic_depth),
            "optimizer": {"peak_lr": 1e-4, "clip_norm": 1.0},
            "batch_images": self.micro_batch,
            "total": "1000 steps",
            "precision": self.precision,
        }
        return PretrainConfig.model_validate(told)

    @property
    def resources(self) -> PretrainResources:
        """Where and how fast."""
        told = {"micro_batch": self.micro_batch, "zero": self.zero, "compile": self.compiled}
        return PretrainResources.model_validate(told)

    @property
    def settings(self) -> ModelSettings:
        """The architecture."""
        return model_of(self.config, CLASSES)


@dataclass
class Trained:
    """An engine and its images, at some step."""

    engine: Engine
    setting: Setting
    batch: Batch
    done: int = 0

    def steps(self, count: int) -> list[StepMetrics]:
        """Make so many steps and wait for the last."""
        plan = LoopPlan(
            seed=0,
            first_step=self.done,
            total_steps=self.done + count,
            lr=lambda step: 1e-5,
            settle_at=lambda step: False,
            stopping=lambda: None,
        )
        made = list(train(self.engine, self._batches(), loss_fn(self.setting.config.objective), plan))
        self.done += count
        return made

    def seconds(self, count: int) -> float:
        """Make so many steps: the mean seconds of one."""
        begun = time.perf_counter()
        self.steps(count)
        return (time.perf_counter() - begun) / count

    def with_micro_batch(self, images: int) -> "Trained":
        """Go on with another micro-batch: DeepSpeed is told by what comes."""
        self.engine.sampler = replace(self.engine.sampler, batch_images=images, micro_batch=images)
        setting = replace(self.setting, micro_batch=images)
        return Trained(self.engine, setting, made_up(setting, self.engine.device.type == "cuda"), self.done)

    def _batches(self) -> Iterator[Batch]:
        return itertools.repeat(self.batch)


def build(setting: Setting, rank: Rank, scratch: Path) -> Trained:
    """Build model and engine as a pretraining's rank does."""
    recipe = ResolvedRecipe(setting.config, setting.resources, 1_000_000)
    job = PretrainJob(recipe, setting.settings, shards=(), init=None, task=doors(scratch, "speed"))
    sampler = DataParallelSampler(setting.micro_batch, setting.micro_batch, rank.rank, rank.world_size)
    return Trained(build_engine(job, rank, sampler, scratch), setting, made_up(setting, rank.device != "cpu"))


def made_up(setting: Setting, pinned: bool) -> Batch:
    """A micro-batch of noise with labels, in the host's memory as the reader leaves it."""
    generator, count, side = torch.Generator().manual_seed(0), setting.micro_batch, setting.model.image_px
    images_BCHW = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    labels_B = torch.randint(0, CLASSES, (count,), generator=generator)
    if pinned:
        images_BCHW = images_BCHW.pin_memory()
    return Batch(images_BCHW, labels_B, torch.ones(count), torch.arange(count))
