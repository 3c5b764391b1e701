"""Torch's own optimisers, with the paper's weight decay: decoupled, and on kernels only. Knows no DeepSpeed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vitpipe.stages.training.lean_moments import LeanAdamW, LeanSGD

from vitpipe.stages.training.config import OptimizerSettings


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trained parameters into kernels, which decay, and all others, which do not.

    As big_vision's mask `.*/kernel`: matrices named `weight`. Biases, norms, class token and position tables are out.
    """
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_kernel = name.rpartition(".")[2] == "weight" and parameter.ndim >= 2
            (kernels if is_kernel else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser a config names, over the model's parameters where they lie.

    Fused kernels on a CPU too: DeepSpeed hands over one flat tensor, of which torch's plain step makes two copies.

    Each update first shrinks kernels by lr x weight_decay, as torch's AdamW does. With `state_dtype` bf16 they are
    ours, which differ in that alone.
    """
    groups = decay_groups(model, settings.weight_decay)
    if settings.state_dtype == "bf16":
        if settings.kind == "sgd":
            return LeanSGD(groups, settings.peak_lr, settings.momentum)
        return LeanAdamW(groups, settings.peak_lr, settings.betas, eps=1e-8)
    if settings.kind == "sgd":
        return DecoupledSGD(groups, lr=settings.peak_lr, momentum=settings.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=settings.peak_lr, betas=settings.betas, eps=1e-8, fused=True)


class DecoupledSGD(torch.optim.SGD):
    """torch's SGD whose decay is no part of the gradient, and so never of the momentum (big_vision `optax.py`)."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        try:
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay


def begin_state(optimizer: torch.optim.Optimizer, weights: Tensor) -> tuple[str, ...]:
    """Give a tensor of weights the state that its first update would make, all zeros; the names of its moments."""
    state: dict[str, Tensor] = optimizer.state[weights]
    kept = torch.bfloat16 if isinstance(optimizer, LeanAdamW | LeanSGD) else weights.dtype
    if isinstance(optimizer, torch.optim.SGD | LeanSGD):
        if not optimizer.param_groups[0]["momentum"] and not isinstance(optimizer, LeanSGD):
            return ()
        state["momentum_buffer"] = torch.zeros_like(weights, dtype=kept)
        return ("momentum_buffer",)
    fused = bool(optimizer.param_groups[0].get("fused"))
    state["step"] = torch.zeros((), device=weights.device if fused else "cpu")
    state["exp_avg"] = torch.zeros_like(weights, dtype=kept)
    state["exp_avg_sq"] = torch.zeros_like(weights)
    return ("exp_avg", "exp_avg_sq")
