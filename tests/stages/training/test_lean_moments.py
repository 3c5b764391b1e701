"""First moments in bfloat16: the rule by its formula, what is stored, and going on from what was stored."""

from typing import Any

import pytest
import torch
from optimizers import optimizer as settings
from torch import Tensor, nn

from vitpipe.stages.training.optim.torch_optimizer import build_optimizer

LR, DECAY, BETAS, MOMENTUM, STEPS = 0.01, 0.1, (0.9, 0.99), 0.9, 20


def made(kind: str, state_dtype: str = "bf16") -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(1)
    layer = nn.Linear(4, 3).double()
    own = {"momentum": MOMENTUM} if kind == "sgd" else {"betas": BETAS}
    fields = {"kind": kind, "peak_lr": LR, "weight_decay": DECAY, "state_dtype": state_dtype, **own}
    return layer, build_optimizer(layer, settings(**fields))


def gradient(step: int, shape: Any) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def train(layer: nn.Linear, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        for parameter in layer.parameters():
            parameter.grad = gradient(step, parameter.shape)
        optimizer.step()


def by_formula(kind: str, weight: Tensor, decay: float) -> Tensor:
    stored, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(STEPS):
        grad = gradient(step, weight.shape)
        if kind == "sgd":
            moment = MOMENTUM * stored + grad
            weight = weight - LR * decay * weight - LR * moment
        elif kind == "lion":
            moment = BETAS[1] * stored + (1 - BETAS[1]) * grad
            weight = weight - LR * decay * weight - LR * (BETAS[0] * stored + (1 - BETAS[0]) * grad).sign()
        else:
            moment = BETAS[0] * stored + (1 - BETAS[0]) * grad
            second = BETAS[1] * second + (1 - BETAS[1]) * grad**2
            size = (second / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8
            weight = weight - LR * decay * weight - LR * moment / (1 - BETAS[0] ** (step + 1)) / size
        stored = moment.bfloat16().double()
    return weight


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lion"])
def test_the_rule_is_its_formula(kind: str) -> None:
    layer, optimizer = made(kind)
    start = {name: one.detach().clone() for name, one in layer.named_parameters()}
    train(layer, optimizer, 0, STEPS)
    for name, decay in (("weight", DECAY), ("bias", 0.0)):
        found = layer.get_parameter(name).detach()
        torch.testing.assert_close(found, by_formula(kind, start[name], decay), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_it_stays_within_bf16_of_torchs_own(kind: str) -> None:
    """A moment is wrong by 2^-9 of itself, and so is a step; 20 steps of rate x moment, the moment at most 30."""
    (lean, one), (full, other) = made(kind), made(kind, "fp32")
    train(lean, one, 0, STEPS)
    train(full, other, 0, STEPS)
    apart = (lean.weight - full.weight).abs().max().item()
    assert 0 < apart < STEPS * LR * 30 * 2**-9
