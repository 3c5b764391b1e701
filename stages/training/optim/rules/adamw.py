"""AdamW and SGD whose first moment is kept in bfloat16, as big_vision's `mu_dtype`: 2 bytes a parameter less.

All arithmetic is in the type of the weights, and the moment is rounded once, where it is stored: the update of a step
does not see its own rounding. Knows no DeepSpeed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LeanAdamW(torch.optim.Optimizer):
    """torch's AdamW, but for the moment's type."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[weight], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = _empty_moment(weight), torch.zeros_like(weight)
        state["step"] += 1
        steps = float(state["step"])
        moment = state["exp_avg"].to(weight.dtype).lerp_(weight.grad, 1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
        size = (state["exp_avg_sq"] / (1 - second**steps)).sqrt_().add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(moment, size, value=-group["lr"] / (1 - first**steps))
        state["exp_avg"].copy_(moment)  # in place, as torch's: a checkpoint keeps hold of the tensor


class LeanSGD(torch.optim.Optimizer):
    """`DecoupledSGD`, but for the momentum's type."""

    def __init__(self, params: Any, lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = _empty_moment(weight)
        moment = state["momentum_buffer"].to(weight.dtype).mul_(group["momentum"]).add_(weight.grad)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(moment, alpha=-group["lr"])
        state["momentum_buffer"].copy_(moment)


def _empty_moment(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight, dtype=torch.bfloat16)
