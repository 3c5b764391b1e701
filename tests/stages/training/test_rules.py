"""Whatever optimisers there are: what each declares is what it keeps; a declaration that lacks a part is refused."""

import ast
from pathlib import Path
from types import ModuleType

import pytest
import torch
from optimizers import optimizer
from torch import nn

from vitpipe.stages.training.optim.kinds import RULES, declared, kinds_of
from vitpipe.stages.training.optim.rule import BYTES, Dtype
from vitpipe.stages.training.optim.torch_optimizer import begin_state, build_optimizer

KINDS = [kind for rule in RULES for kind in kinds_of(rule)]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
NEW = Path(__file__).with_name("signum.py")
"""An optimiser that is not there yet."""


def gradients(layer: nn.Module, step: int) -> None:
    for number, parameter in enumerate(layer.parameters()):
        made = torch.Generator().manual_seed(100 * step + number)
        parameter.grad = torch.randn(parameter.shape, generator=made)


@pytest.mark.parametrize("state_dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_declared_is_what_is_kept(kind: str, state_dtype: Dtype) -> None:
    rule, layer = optimizer(kind=kind, state_dtype=state_dtype), nn.Linear(7, 5)
    made = build_optimizer(layer, rule)
    before = layer.weight.detach().clone()
    for step in range(2):
        gradients(layer, step)
        made.step()
    assert not torch.equal(layer.weight, before)
    for parameter, state in made.state.items():
        kept = {name: one for name, one in state.items() if one.dim()}
        assert {name: one.dtype for name, one in kept.items()} == {
            name: DTYPES[dtype] for name, dtype in rule.moments.items()
        }
        assert all(one.abs().max() > 0 for one in kept.values()), "a moment that no update writes is dead"
        assert sum(one.nbytes for one in kept.values()) == rule.moment_bytes * parameter.numel()
        assert ("step" in state) == rule.counts_updates
        begun = begin_state(build_optimizer(layer, rule), rule, parameter.detach())
        assert {name: (one.dtype, one.shape) for name, one in begun.items()} == {
            name: (one.dtype, one.shape) for name, one in state.items()
        }, "what a checkpoint begins with is what a step makes"


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_saves_two_bytes_of_one_moment(kind: str) -> None:
    full, lean = (optimizer(kind=kind, state_dtype=dtype).moment_bytes for dtype in BYTES)
    assert full - lean == 2


def test_momentum_that_is_0_is_not_kept() -> None:
    assert optimizer(kind="sgd", momentum=0.0).moment_bytes == 0
    assert optimizer(kind="sgd", momentum=0.0, state_dtype="bf16").moment_bytes == 2  # as old checkpoints have it


def without(part: str) -> str:
    """The source of the new optimiser, a part of its class left out."""
    tree = ast.parse(NEW.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.body = [one for one in node.body if part not in (_name(one), f"{node.name}.{_name(one)}")]
    tree.body = [node for node in tree.body if _name(node) != part]
    return ast.unparse(tree)


def _name(node: ast.stmt) -> str:
    return (
        node.target.id
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        else getattr(node, "name", "")
    )


def module(source: str) -> ModuleType:
    made = ModuleType("signum")
    exec(source, made.__dict__)
    return made


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (without("moments"), "Signum does not declare moments"),
        (without("update"), "Signum does not declare update"),
        (without("kind"), r"Signum does not declare kind: Literal\[...\]"),
        (without("Signum"), "has 0 subclasses of OptimizerSettings"),
        (NEW.read_text().replace('Literal["signum"]', 'Literal["signum"] = "signum"'), "its kind has a default"),
    ],
)
def test_a_forgotten_part_is_refused_when_configs_are_read(source: str, words: str) -> None:
    assert kinds_of(declared(module(NEW.read_text()))) == ("signum",)
    with pytest.raises(TypeError, match=words):
        declared(module(source))
