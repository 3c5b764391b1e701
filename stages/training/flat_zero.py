"""ZeRO 0 and 1 whose step asks the device nothing: DeepSpeed's flat optimiser with the passes over gradients our own.

A step is left out on the device too, so the host learns of it when it likes. Of launched operations a parameter costs
those of its passes alone: all else is made of whole flat tensors. Imports DeepSpeed: imported on a rank, by the engine.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.engine import BFLOAT16, DeepSpeedEngine
from torch import Tensor, nn

_SETTINGS = SimpleNamespace(enabled=True, immediate_grad_update=False)
"""What DeepSpeed's class asks of a section `bf16`; nothing in it minds that weights are fp32."""
_EPS = 1e-6
"""Added to the norm that gradients are divided by (`torch.nn.utils.clip_grads_with_norm_`, and DeepSpeed's own)."""


@dataclass(frozen=True)
class FlatSettings:
    """What a step does to gradients."""

    whole: bool
    """ZeRO 0: every rank keeps and updates everything."""
    clip_norm: float | None
    reduce_dtype: torch.dtype


class FlatEngine(DeepSpeedEngine):  # type: ignore[misc]
    """DeepSpeed's engine with a `FlatOptimizer`. The configuration says ZeRO 1, and no clipping."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any], settings: FlatSettings
    ) -> None:
        self._flat_settings = settings
        super().__init__(
            args=None, model=model, optimizer=optimizer, config=config, config_class=DeepSpeedConfig(config, None)
        )

    def _do_optimizer_sanity_check(self, basic_optimizer: torch.optim.Optimizer) -> str:
        return str(BFLOAT16)

    def _configure_bf16_optimizer(self, optimizer: torch.optim.Optimizer) -> "FlatOptimizer":
        return FlatOptimizer(optimizer, self.param_names, self.seq_data_parallel_group, self._flat_settings)


class FlatOptimizer(BF16_Optimizer):  # type: ignore[misc]
    """Each group's weights and gradients are one flat tensor; a rank updates its part of it in fp32, or all of it.

    With fp32 weights these are no copy: the weights themselves are updated. `optimizer` must pass over a step whose
    `found_inf` is 1, as torch's fused ones do.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: dict[nn.Parameter, str],
        group: dist.ProcessGroup,
        settings: FlatSettings,
    ) -> None:
        whole = settings.whole
        self._group, self._whole, self._reduce_dtype = group, whole, settings.reduce_dtype
        self._clip_norm = settings.clip_norm
        alone = dist.new_group([dist.get_rank()], use_local_synchronization=True) if whole else group
        super().__init__(optimizer, names, _SETTINGS, dp_process_group=alone, grad_acc_dtype=torch.float32)
        self._weights = [flat.detach() for flat in self.bf16_groups_flat]
        self._own = [parts[self.dp_rank].detach() for parts in self.bf16_partitioned_groups]
        self._in_place = self._weights[0].dtype == torch.float32
        if self._in_place:
            for master, part in zip(self.fp32_groups_flat_partition, self._own, strict=True):
                master.data = part
            self._link_all_hp_params()  # of which views keep the copy alive that was made before
        for master, summed in zip(
            self.fp32_groups_flat_partition, self.fp32_groups_gradient_flat_partition, strict=True
        ):
            master.grad = summed
        self._trained = [one for group in self.bf16_groups for one in group]
        self._sums = _shaped(self.fp32_groups_gradients_flat, self.bf16_groups)
        """Views of the flat gradients, one a parameter."""
        self._normed = self._fragments()
        self._late: tuple[list[Tensor], list[Tensor]] | None = None
        self._fresh = True
        """Whether the flat gradients are of a step that is over."""

    @torch.no_grad()
    def update_hp_grads(self, clear_lp_grads: bool = False) -> None:
        """Add a pass's gradients, each where it belongs, and let go of them."""
        grads = [one.grad for one in self._trained]
        known = [(sums, grad) for sums, grad in zip(self._sums, grads, strict=True) if grad is not None]
        sums, found = [one for one, _ in known], [one for _, one in known]
        if self._fresh:
            if len(known) < len(grads):
                torch._foreach_zero_(self.fp32_groups_gradients_flat)
            torch._foreach_copy_(sums, found)
        elif self._in_place or len(known) < len(grads):
            torch._foreach_add_(sums, found)
        else:
            self._add_rounded(found)
        self._fresh = False
        for one in self._trained:
            one.grad = None

    def reduce_gradients(self, pipeline_parallel: bool = False) -> None:
        """Sum over the ranks, once a step; of what another rank updates, a rank learns nothing."""
        if dist.get_world_size(self._group) == 1:
            return
        for flat, part in zip(self.fp32_groups_gradients_flat, self.fp32_groups_gradient_flat_partition, strict=True):
            sent = flat.to(self._reduce_dtype)
            own = part if sent is flat else sent.narrow(0, part.storage_offset(), part.numel())
            if self._whole:
                dist.all_reduce(sent, group=self._group)
            else:
                dist.reduce_scatter_tensor(own, sent, group=self._group)
            if sent is not flat:
                part.copy_(own)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Clip and update; nothing changes when the norm is not finite, which the host need not know."""
        norm = self._norm()
        if self._clip_norm is not None:
            scale = torch.clamp(self._clip_norm / (norm + _EPS), max=1.0)
            torch._foreach_mul_(self.fp32_groups_gradient_flat_partition, scale)
        self._global_grad_norm = norm
        self.optimizer.found_inf = (~norm.isfinite()).float()
        self.optimizer.step()
        self.update_lp_params()
        self._fresh = True

    @torch.no_grad()
    def update_lp_params(self) -> None:
        """Round what this rank updated, and give it to all others."""
        if not self._in_place:
            torch._foreach_copy_(self._own, self.fp32_groups_flat_partition)
        if not self._whole and dist.get_world_size(self._group) > 1:
            for flat, own in zip(self._weights, self._own, strict=True):
                dist.all_gather_into_tensor(flat, own, group=self._group)

    def clear_hp_grads(self) -> None:
        """Nothing to do: a step's first pass writes over them."""

    def _add_rounded(self, found: list[Tensor]) -> None:
        """bf16 gradients, first copied into flat tensors: torch adds lists of different types one by one."""
        if self._late is None:
            flat = [torch.empty_like(one) for one in self._weights]
            self._late = flat, _shaped(flat, self.bf16_groups)
        flat, views = self._late
        torch._foreach_copy_(views, found)
        for total, one in zip(self.fp32_groups_gradients_flat, flat, strict=True):
            total.add_(one)

    def _norm(self) -> Tensor:
        """Of all gradients, an fp32 scalar, the same on all ranks."""
        norms = torch._foreach_norm(self._normed) if self._normed else [self._weights[0].new_zeros(())]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms).float())
        if self._whole or dist.get_world_size(self._group) == 1:
            return norm
        total = norm.double().square()
        dist.all_reduce(total, group=self._group)
        return total.sqrt().float()

    def _fragments(self) -> list[Tensor]:
        """Views of what this rank updates of each parameter's gradient, in the model's order."""
        found = {}
        for group, (flat, own) in enumerate(
            zip(self.fp32_groups_gradients_flat, self.fp32_groups_gradient_flat_partition, strict=True)
        ):
            first, at = own.storage_offset(), 0
            for parameter in self.bf16_groups[group]:
                low, high = max(at, first), min(at + parameter.numel(), first + own.numel())
                if low < high:
                    found[parameter] = flat.narrow(0, low, high - low)
                at += parameter.numel()
        return [found[one] for one in self.param_names if one in found]


def _shaped(flat: list[Tensor], groups: list[list[nn.Parameter]]) -> list[Tensor]:
    """Views of flat tensors in the shapes of each group's parameters."""
    views = []
    for tensor, parameters in zip(flat, groups, strict=True):
        at = 0
        for one in parameters:
            views.append(tensor.narrow(0, at, one.numel()).view(one.shape))
            at += one.numel()
    return views
