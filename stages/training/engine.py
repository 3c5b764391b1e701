"""DeepSpeed behind three verbs: forward, accumulate, step; and the settings it needs. Nobody else imports it.

Knows no data, no schedule and no store. One step is the same mean over the global batch at every world size.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitpipe.infra.work import Rank
from vitpipe.stages.training.config import BUCKET_ELEMENTS, WEIGHT
from vitpipe.stages.training.optim.ema import WeightAverage
from vitpipe.stages.training.optim.rule import OptimizerSettings
from vitpipe.stages.training.optim.torch_optimizer import RuleOptimizer, build_optimizer, set_rate
from vitpipe.stages.training.rank_state import RankState
from vitpipe.stages.training.sampler import DataParallelSampler


@dataclass(frozen=True)
class EngineSettings:
    """How the state is split, and in which precision it is trained."""

    zero: int
    precision: str
    clip_norm: float | None
    image_px: int
    """Side of the images, to make padding up."""
    ema_decay: float | None = None
    """Decay of a running average of the parameters; None keeps none."""
    offload: bool = False
    """Keep fp32 weights and moments in the host's memory, and update them there (ZeRO-Offload); not at ZeRO 0."""
    layer_decay: float | None = None
    """Layer-wise decay of the learning rate; None for one rate."""

    reduce_dtype: str = "fp32"
    """Type that gradients are summed over the ranks in."""

    @property
    def flat(self) -> bool:
        """Whether a step asks the device nothing (`flat_zero.py`); what splits more, or offloads, is DeepSpeed's."""
        return self.zero <= 1 and not self.offload


class Engine:
    """A model with its optimiser on all ranks."""

    def __init__(
        self,
        model: nn.Module,
        rule: OptimizerSettings,
        settings: EngineSettings,
        sampler: DataParallelSampler,
        rank: Rank,
    ) -> None:
        # deepspeed is imported only on a rank: its import takes seconds, and fails where no accelerator is chosen
        import deepspeed
        import deepspeed.ops

        from vitpipe.stages.training.flat_zero import FlatEngine, FlatSettings

        # None of DeepSpeed's own compiled ops is used, and the one for CPU ranks would be built on first use, though
        # it serves inference alone: its buffers have names that two gangs of one machine can share.
        deepspeed.ops.__compatible_ops__ = {}
        forget_gang()
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self.settings, self.sampler, self.device = settings, sampler, torch.device(rank.device)
        optimizer = build_optimizer(model, rule, settings.layer_decay)
        config = deepspeed_config(settings, sampler, self.device)
        if settings.flat:
            deepspeed.init_distributed()
            reduced = torch.bfloat16 if settings.reduce_dtype == "bf16" else torch.float32
            flat = FlatSettings(settings.zero == 0, settings.clip_norm, reduced)
            self._engine = FlatEngine(model, optimizer, config, flat)
        else:
            self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._optimizer = optimizer
        # DeepSpeed averages gradients over the ranks, so its mean times the world size is the sum that we divide.
        self._per_image = (1 if settings.flat else sampler.world_size) / sampler.batch_images
        self.state = RankState(self._engine, optimizer, rule, settings.zero, rank)
        self.average: WeightAverage | None = None
        """Of this rank's share of the weights."""
        if settings.ema_decay is not None:
            self.average = WeightAverage(self.state.numbers(WEIGHT, self.state.share), settings.ema_decay)

    @property
    def model(self) -> nn.Module:
        """The model as it was given; under ZeRO 3 its parameters have no shape between passes."""
        module: nn.Module = self._engine.module
        return module

    def forward(self, images: Tensor, *hints: Tensor) -> Tensor:
        """The model's outputs for a micro-batch, in the engine's precision."""
        outputs: Tensor = self._engine(images, *hints)
        return outputs

    @contextmanager
    def evaluating(self, method: str = "forward") -> Iterator[None]:
        """Inside, `forward` answers with this method of the model, without dropout and gradients.

        The module itself is called, so that under ZeRO 3 its hooks gather the weights. Leaves no trace in training.
        """
        module = self._engine.module
        module.eval()
        module.forward = getattr(module, method)
        try:
            with torch.no_grad():
                yield
        finally:
            del module.forward
            module.train()

    def accumulate(self, losses_B: Tensor, weights_B: Tensor) -> Tensor:
        """Add the gradient of the weighted losses divided by the global batch; their weighted sum, detached, fp64.

        Images of weight 0 count as loss 0: a masked image keeps its slot in the batch. A sum that is not finite makes
        every gradient NaN, and with it the norm on all ranks, so that they agree to leave the step out.
        """
        loss = (losses_B * weights_B).sum()
        sane = torch.where(loss.detach().isfinite(), 1.0, torch.nan)
        self._engine.backward(loss * (sane * self._per_image), scale_wrt_gas=False)
        return loss.detach().double()

    def pad(self) -> None:
        """Make a pass that adds nothing: a rank without a micro-batch left must still meet the others.

        The model must use all of its parameters without hints too.
        """
        side = self.settings.image_px
        images = torch.zeros(self.sampler.micro_batch, 3, side, side, dtype=torch.uint8, device=self.device)
        self._engine.backward(self.forward(images).float().sum() * 0.0, scale_wrt_gas=False)

    def end_pass(self) -> None:
        """Tell DeepSpeed that a pass is over that was not the step's last."""
        self._engine.step()

    def step(self, lr: float) -> Tensor:
        """End the step's last pass: clip, update all weights, clear gradients.

        Returns the gradient's global norm before clipping, an fp32 scalar. When it is not finite nothing was updated:
        not weights, moments, nor their count of steps.
        """
        set_rate(self._engine.optimizer, lr)
        self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)

    def learn(self, applied: bool) -> None:
        """Take note whether the last step updated anything: before the next one, and before the state is looked at."""
        if not applied and isinstance(self._optimizer, RuleOptimizer):
            self._optimizer.take_back()
        if applied and self.average is not None:
            self.average.update()


def forget_gang() -> None:
    """Undo what DeepSpeed leaves in a process whose gang is gone: its groups, and the linear layer of ZeRO 3.

    That one rounds otherwise than torch's, and its `functional.linear` would stay in whatever runs here next.
    """
    if "deepspeed" not in sys.modules:
        return
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses as Patches
    from deepspeed.utils import groups

    groups._release_process_group_references()
    nn.functional.linear = getattr(Patches, "linear_bk", nn.functional.linear)


def deepspeed_config(settings: EngineSettings, sampler: DataParallelSampler, device: torch.device) -> dict[str, Any]:
    """DeepSpeed's configuration: only what differs from its defaults, with the reason."""
    bf16, cuda = settings.precision == "bf16", device.type == "cuda"
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": sampler.micro_batch,
        "gradient_accumulation_steps": sampler.accumulation_steps,
        "gradient_clipping": 0.0 if settings.flat or settings.clip_norm is None else settings.clip_norm,
        "bf16": {"enabled": bf16},
        "zero_optimization": {
            "stage": 1 if settings.flat else settings.zero,
            "overlap_comm": cuda and settings.zero >= 2,  # gloo has no streams to overlap on
            "contiguous_gradients": True,
            # The defaults, 5e8, would hold all of a ViT-L: nothing left to overlap, and a copy of all gradients.
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
            "stage3_max_live_parameters": 2 * BUCKET_ELEMENTS,
            "stage3_max_reuse_distance": 2 * BUCKET_ELEMENTS,
            **({"offload_optimizer": {"device": "cpu", "pin_memory": cuda}} if settings.offload else {}),
        },
        "zero_allow_untested_optimizer": True,  # torch's own optimisers are not on its list
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is one too, and the same rule as on a GPU
        "steps_per_print": 2**62,  # our loop reports
    }
    if bf16:
        config["data_types"] = {"grad_accum_dtype": "fp32"}  # a sum of 64 micro-batches in bf16 would keep 8 bits
        config["communication_data_type"] = settings.reduce_dtype  # by default bf16; of ZeRO 2 and 3, which send it
    return config
