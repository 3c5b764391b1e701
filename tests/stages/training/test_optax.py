"""Fifty steps of a tiny model in double precision: our optimisers and schedules against optax's."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from optimizers import optimizer as read
from torch import Tensor, nn

from vitpipe.stages.training.optim.schedule import ScheduleSettings, in_steps, lr_at
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer

STEPS, WARMUP, COOLDOWN, TIMESCALE = 50, 8, 10, 16
PEAK = 0.05
KERNELS = ("first.weight", "last.weight")
ROUNDING = 1e-12
"""fp64 rounds to 1e-16 of a value; 50 steps of sums of 6 terms, of weights near 1, and as much again for what a step
makes of the error of the one before."""
CLIPPING = 1e-6 * PEAK * 10 * STEPS
"""torch divides by the norm + 1e-6 where optax divides by the norm: a clipped gradient is up to 1e-6 shorter. Times
rate, momentum 1 / (1 - 0.9) and steps."""

Arrays = dict[str, Any]


class Net(nn.Module):
    """A kernel of each kind that decays, and one of each kind of parameter that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 6))

    def forward(self, x_BI: Tensor) -> Tensor:
        y_B: Tensor = self.last(torch.tanh(self.norm(self.first(x_BI) + self.cls_token)))[:, 0]
        return y_B


def made() -> Net:
    torch.manual_seed(0)
    return Net().double()


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(step)
    x_BI = rng.standard_normal((8, 3))
    return x_BI, 3 * np.sin(x_BI @ np.array([1.0, -2.0, 0.5]))


def ours(optimizer: dict[str, Any], schedule: dict[str, Any]) -> Arrays:
    settings, net = read(**{"peak_lr": PEAK, **optimizer}), made()
    way = in_steps(ScheduleSettings.model_validate({"warmup": f"{WARMUP} steps", **schedule}), STEPS, 8, 8)
    rule = build_optimizer(net, settings)
    for step in range(STEPS):
        x_BI, y_B = (torch.from_numpy(part) for part in batch(step))
        rule.zero_grad()
        (net(x_BI) - y_B).square().mean().backward()
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
        for group in rule.param_groups:
            group["lr"] = lr_at(step, STEPS, way, PEAK)
        rule.step()
    return {name: one.detach().numpy() for name, one in net.named_parameters()}


def theirs(rule: Callable[[Any], Any], schedule: Callable[[Any], Any]) -> Arrays:
    with jax.enable_x64(True):
        weights = {name: jax.numpy.asarray(one.detach().numpy()) for name, one in made().named_parameters()}
        chain = rule(lambda step: schedule(step.astype(float)))  # an integer makes its rates fp32
        state = chain.init(weights)

        @jax.jit
        def moved(weights: Any, state: Any, x_BI: Any, y_B: Any) -> Any:
            updates, state = chain.update(jax.grad(_loss)(weights, x_BI, y_B), state, weights)
            return optax.apply_updates(weights, updates), state

        for step in range(STEPS):
            weights, state = moved(weights, state, *batch(step))
        return {name: np.asarray(one) for name, one in weights.items()}


def _loss(weights: Arrays, x_BI: Any, y_B: Any) -> Any:
    h = x_BI @ weights["first.weight"].T + weights["first.bias"] + weights["cls_token"]
    h = (h - h.mean(1, keepdims=True)) / jax.numpy.sqrt(h.var(1, keepdims=True) + 1e-5)
    h = jax.numpy.tanh(h * weights["norm.weight"] + weights["norm.bias"])
    return ((h @ weights["last.weight"].T + weights["last.bias"])[:, 0] - y_B).__pow__(2).mean()


def kernels(weights: Arrays) -> dict[str, bool]:
    return {name: name in KERNELS for name in weights}


def warmed(after: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return optax.join_schedules([optax.linear_schedule(0, PEAK, WARMUP), after], [WARMUP])


LINEAR = ({"kind": "linear", "end_lr": 1e-3}, warmed(optax.linear_schedule(PEAK, 1e-3, STEPS - WARMUP)))
COSINE = ({"kind": "cosine"}, optax.warmup_cosine_decay_schedule(0, PEAK, WARMUP, STEPS))
RSQRT = (
    {"kind": "rsqrt", "cooldown": f"{COOLDOWN} steps", "timescale": f"{TIMESCALE} steps"},
    lambda step: (
        warmed(lambda after: PEAK / jax.numpy.sqrt(1 + after / TIMESCALE))(step)
        * jax.numpy.minimum(1, (STEPS - step) / COOLDOWN)
    ),
)
CONSTANT = ({"kind": "constant"}, warmed(optax.constant_schedule(PEAK)))


def adamw(rate: Any, **options: Any) -> Any:
    return optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=0.1, **{"mask": kernels, **options})


def sgd(rate: Any) -> Any:
    decay = optax.add_decayed_weights(0.1, kernels)
    return optax.chain(optax.trace(0.9), decay, optax.scale_by_learning_rate(rate))


def lion(rate: Any, **options: Any) -> Any:
    return optax.lion(rate, **{"b1": 0.9, "b2": 0.99, "weight_decay": 0.1, "mask": kernels, **options})


DECAY = {"weight_decay": 0.1, "clip_norm": None}
ADAMW = {"kind": "adamw", "betas": (0.9, 0.99), **DECAY}


def distance(one: Arrays, other: Arrays) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, RSQRT, CONSTANT], ids=lambda one: one[0]["kind"])
def test_adamw_follows_optax_on_every_schedule(schedule: Any) -> None:
    assert distance(ours(ADAMW, schedule[0]), theirs(adamw, schedule[1])) < ROUNDING


def test_adam_is_the_same_rule() -> None:
    assert distance(ours({**ADAMW, "kind": "adam"}, LINEAR[0]), ours(ADAMW, LINEAR[0])) == 0


def test_adam_without_decay_is_adam() -> None:
    found = ours({"kind": "adam", "weight_decay": 0.0, "clip_norm": None}, COSINE[0])
    assert distance(found, theirs(optax.adam, COSINE[1])) < ROUNDING


def test_sgd_follows_optax() -> None:
    assert distance(ours({"kind": "sgd", **DECAY}, COSINE[0]), theirs(sgd, COSINE[1])) < ROUNDING


def test_lion_follows_optax() -> None:
    assert distance(ours({"kind": "lion", **DECAY}, COSINE[0]), theirs(lion, COSINE[1])) < ROUNDING


@pytest.mark.parametrize("options", [{"b1": 0.99, "b2": 0.9}, {"mask": None}], ids=["betas", "mask"])
def test_another_lion_is_seen(options: dict[str, Any]) -> None:
    other = theirs(lambda rate: lion(rate, **options), LINEAR[1])
    assert distance(ours({"kind": "lion", **DECAY}, LINEAR[0]), other) > 1000 * ROUNDING


def test_decay_in_the_momentum_would_be_seen() -> None:
    coupled = theirs(
        lambda rate: optax.chain(optax.add_decayed_weights(0.1, kernels), optax.sgd(rate, momentum=0.9)), COSINE[1]
    )
    assert distance(ours({"kind": "sgd", **DECAY}, COSINE[0]), coupled) > 1000 * ROUNDING


@pytest.mark.parametrize(("kind", "rule"), [("adamw", adamw), ("sgd", sgd)])
def test_clipping_follows_optax(kind: str, rule: Any) -> None:
    asked = {**(ADAMW if kind == "adamw" else DECAY), "kind": kind, "clip_norm": 0.5}
    clipped = theirs(lambda rate: optax.chain(optax.clip_by_global_norm(0.5), rule(rate)), LINEAR[1])
    assert distance(ours(asked, LINEAR[0]), clipped) < CLIPPING
    assert distance(clipped, theirs(rule, LINEAR[1])) > 100 * CLIPPING  # and it did clip


def test_a_lean_first_moment_loses_less_than_optaxs() -> None:
    """optax multiplies the stored moment by its decay rate in bf16, we in the weights' type: one rounding less."""
    whole = ours(ADAMW, LINEAR[0])
    lean = theirs(lambda rate: adamw(rate, mu_dtype=jax.numpy.bfloat16), LINEAR[1])
    assert 0 < distance(ours({**ADAMW, "state_dtype": "bf16"}, LINEAR[0]), whole) < distance(lean, whole)


@pytest.mark.parametrize(
    "other",
    [
        lambda rate: adamw(rate, mask=None),  # biases, norm and token decay too
        lambda rate: optax.chain(optax.add_decayed_weights(0.1, kernels), optax.adam(rate, b2=0.99)),  # L2, not decay
        lambda rate: adamw(rate, nesterov=True),
        lambda rate: adamw(rate, eps=1e-6),
        lambda rate: adamw(lambda step: rate(step + 1)),  # one step early
    ],
    ids=["mask", "coupled", "nesterov", "eps", "early"],
)
def test_another_rule_is_seen(other: Callable[[Any], Any]) -> None:
    assert distance(ours(ADAMW, LINEAR[0]), theirs(other, LINEAR[1])) > 1000 * ROUNDING
