"""The optimiser of a model, as its rule declares it: torch's own where there is one, else one that calls the rule.

With the paper's weight decay: decoupled, and on kernels only. Knows no rule by name and no DeepSpeed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitpipe.stages.training.config import UPDATED_AT_A_TIME
from vitpipe.stages.training.optim.layer_decay import layer_scales
from vitpipe.stages.training.optim.rule import OptimizerSettings

SCALE = "lr_scale"
"""A group's share of the learning rate, in an optimiser's groups; BEiT's name for it."""
STEP = "step"
"""How many updates were made, in an optimiser's state, where the rule counts them; torch's name for it."""


def decay_groups(
    model: nn.Module, weight_decay: float, decays: str = "kernels", layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Split the trained parameters into kernels, which decay, and all others, which do not, and each of both by layer.

    As big_vision's mask `.*/kernel`: matrices named `weight`. Biases, norms, class token and position tables are out,
    unless `decays` is all. With `layer_decay` the groups differ in their share of the learning rate too.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    scales = layer_scales((name for name, _ in trained), 1.0 if layer_decay is None else layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in trained:
        is_kernel = name.rpartition(".")[2] == "weight" and parameter.ndim >= 2
        groups.setdefault((scales[name], not (is_kernel or decays == "all")), []).append(parameter)
    return [
        {"params": groups[scale, spared], "weight_decay": 0.0 if spared else weight_decay, SCALE: scale}
        for scale, spared in sorted(groups)
    ]


def build_optimizer(
    model: nn.Module, rule: OptimizerSettings, layer_decay: float | None = None, *, fused: bool = True
) -> torch.optim.Optimizer:
    """The optimiser that a config describes, over the model's parameters where they lie.

    `fused` kernels on a CPU too: DeepSpeed hands over one flat tensor, of which torch's plain step makes two copies.
    """
    groups, own = decay_groups(model, rule.weight_decay, rule.decays, layer_decay), rule.fused
    if own is None:
        return RuleOptimizer(groups, rule)
    kernel = {"fused": True} if fused else {}
    made: torch.optim.Optimizer = getattr(torch.optim, own.name)(groups, lr=rule.peak_lr, **kernel, **own.options)
    if not own.decouples:
        for group in made.param_groups:
            group["decoupled_decay"], group["weight_decay"] = group["weight_decay"], 0.0
        made.register_step_pre_hook(_decay)
    return made


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[SCALE]


class RuleOptimizer(torch.optim.Optimizer):
    """Makes the update that a rule declares, with the moments that it declares, in their types.

    All arithmetic is in the type of the weights, and a bf16 moment is rounded once, where it is stored: the update of
    a step does not see its own rounding. As torch's fused optimisers it makes none where its attribute `found_inf`, a
    scalar on the device, is 1; the host, which counts updates, says so later by `take_back`.
    """

    found_inf: Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], rule: OptimizerSettings) -> None:
        super().__init__(groups, {"lr": rule.peak_lr, "weight_decay": 0.0})
        self._rule = rule

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def take_back(self) -> None:
        """Count the last step as none: where `found_inf` told of it, and it changed nothing but the count."""
        for state in self.state.values():
            if STEP in state and self.found_inf is not None:
                state[STEP] -= 1

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state: dict[str, Tensor] = self.state[weight] or begin_state(self, self._rule, weight)
        updates = 0
        if STEP in state:
            state[STEP] += 1
            updates = int(state[STEP])
        assert weight.grad is not None
        kept = [state[name] for name in self._rule.moments]
        if self.found_inf is None:
            self._apply(weight, weight.grad, kept, group, updates)
            return
        flat = (torch.split(one.detach().view(-1), UPDATED_AT_A_TIME) for one in (weight, weight.grad, *kept))
        for part, grad, *moments in zip(*flat, strict=True):
            self._apply(part, grad, moments, group, updates, self.found_inf > 0)

    def _apply(
        self,
        weight: Tensor,
        grad: Tensor,
        kept: list[Tensor],
        group: dict[str, Any],
        updates: int,
        skip: Tensor | None = None,
    ) -> None:
        """Change a weight and its moments; with `skip`, a flag on the device, they are changed aside and chosen."""
        aside = skip is not None
        new = weight.clone() if aside else weight
        moments = [one.to(weight.dtype, copy=aside) for one in kept]
        new.mul_(1 - group["lr"] * group["weight_decay"])
        self._rule.update(new, grad, dict(zip(self._rule.moments, moments, strict=True)), group["lr"], updates)
        for old, made in zip([weight, *kept], [new, *moments], strict=True):
            if skip is not None:
                old.copy_(torch.where(skip, old, made))
            elif made is not old:
                old.copy_(made)  # in place, as torch's: a checkpoint keeps hold of the tensor


def begin_state(optimizer: torch.optim.Optimizer, rule: OptimizerSettings, weights: Tensor) -> dict[str, Tensor]:
    """Give a tensor of weights the state that its first update would make, all zeros: a rule's moments, its count."""
    state: dict[str, Tensor] = optimizer.state[weights]
    if rule.counts_updates:
        state[STEP] = torch.zeros((), device=weights.device if rule.fused else "cpu")  # where torch's kernel wants it
    for (
        name,
        dtype,
    ) in rule.moments.items():  # fp32 as the weights are, where not made smaller
        state[name] = torch.zeros_like(weights, dtype=torch.bfloat16 if dtype == "bf16" else weights.dtype)
    return state


def _decay(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Shrink the weights before a step whose own decay would be a part of the gradient, and so of the momentum."""
    found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
    for group in optimizer.param_groups:
        kept = 1 - group["lr"] * group["decoupled_decay"]
        for weight in group["params"]:
            if weight.grad is not None:
                weight.detach().mul_(kept if found_inf is None else torch.where(found_inf > 0, 1.0, kept))
