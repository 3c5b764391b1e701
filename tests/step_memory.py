"""What real DeepSpeed steps take of memory, each rank a fresh process: highest anonymous bytes above its imports."""

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import inprocess
import torch

from vitpipe.infra.work import Rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.memory import terms
from vitpipe.stages.training.checkpoint.snapshot import Snapshot
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.loop import LoopPlan, train
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.vit.build import build_model, checkpoint_blocks
from vitpipe.stages.vit.flops import num_parameters
from vitpipe.stages.vit.init import init_weights


@dataclass(frozen=True)
class Case:
    """One training of a few steps."""

    variant: str = "S/16"
    precision: str = "fp32"
    zero: int = 1
    ranks: int = 1
    micro_batch: int = 1
    accumulation_steps: int = 1
    """Micro-batches of a rank in one step."""
    ema: bool = False
    saves: bool = False
    """Copy the state as for a checkpoint."""
    offload: bool = False
    recompute: bool = False
    state_dtype: str = "fp32"
    kind: str = "adamw"
    classes: int = 1000

    @property
    def config(self) -> PretrainConfig:
        fields: dict[str, Any] = {
            "model": {"variant": self.variant, "image_px": 224, "classes": self.classes}, "total": "3 steps",
            "batch_images": self.micro_batch * self.ranks * self.accumulation_steps, "precision": self.precision,
            "optimizer": {"kind": self.kind, "state_dtype": self.state_dtype},
            **({"ema": {"decay": 0.999}} if self.ema else {}),
        }  # fmt: skip
        return PretrainConfig.model_validate(fields)

    @property
    def resources(self) -> PretrainResources:
        fields = {
            "workers": self.ranks, "gpus_per_worker": 0, "micro_batch": self.micro_batch, "zero": self.zero,
            "offload": "cpu" if self.offload else "none",
            "activation_checkpointing": "blocks" if self.recompute else "none",
        }  # fmt: skip
        return PretrainResources.model_validate(fields)

    @property
    def planned(self) -> int:
        """Bytes that the plan says, comparable with what is found."""
        model = self.config.model
        parts = terms(self.config, self.resources, model, num_parameters(model), gpu=False)
        return int(sum(parts.values()) - parts["process"] - (0 if self.saves else parts["checkpoint"]))


@dataclass(frozen=True)
class Found:
    """Of one rank."""

    bytes: int
    """Highest anonymous memory, less what stood before the model was built."""
    losses: tuple[float, ...]
    norms: tuple[float, ...]
    moved: bool
    """Whether weights are others after the steps."""


def measured(case: Case, folder: Path, steps: int = 3) -> list[Found]:
    """Make a few steps and read what every rank needed."""
    inprocess._spawn(functools.partial(_steps, folder, case, steps), case.ranks, str(folder))
    told = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(case.ranks)]
    return [Found(**one) for one in told]


def _steps(folder: Path, case: Case, steps: int, rank: Rank) -> None:
    import deepspeed  # noqa: F401  # what its import takes is not the model's

    Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out, this process goes first
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
    before = _kilobytes("RssAnon")
    config, resources = case.config, case.resources
    vit = build_model(config.model)
    init_weights(vit, seed=0)
    if case.recompute:
        checkpoint_blocks(vit)
    settings = EngineSettings(
        case.zero, case.precision, 1.0, 224, ema_decay=config.ema.decay if config.ema else None, offload=case.offload
    )
    sampler = DataParallelSampler(config.batch_images, resources.micro_batch or 1, rank.rank, rank.world_size)
    made = Engine(vit.train(), config.optimizer, settings, sampler, rank)
    snapshot = Snapshot(made, rank.rank) if case.saves else None
    watched = made.state.numbers("weight", made.state.share)
    first = [one.flatten()[:1].clone() for one in watched]
    course = LoopPlan(0, 0, steps, lambda step: 1e-3, lambda step: True, lambda: None)
    losses, norms = [], []
    for facts in train(made, _images(sampler, steps), loss_fn(config.objective), course):
        losses.append(facts.loss)
        norms.append(facts.grad_norm)
        if snapshot is not None and facts.settled:
            snapshot.take(facts.step)
    peak = _kilobytes("VmHWM") - _kilobytes("RssFile") - _kilobytes("RssShmem")
    moved = any(not torch.equal(one.flatten()[:1], old) for one, old in zip(watched, first, strict=True))
    found = Found(1024 * (peak - before), tuple(losses), tuple(norms), moved)
    (folder / f"found-{rank.rank}.json").write_text(json.dumps(asdict(found)))


def _images(sampler: DataParallelSampler, steps: int) -> Iterator[Batch]:
    for start, count in sampler.ranges(0, steps):
        made = torch.Generator().manual_seed(start)
        images = torch.randint(0, 256, (count, 3, 224, 224), generator=made, dtype=torch.uint8)
        places = torch.arange(start, start + count)
        yield Batch(images, places % 10, torch.ones(count), places)


def _kilobytes(field: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0])
