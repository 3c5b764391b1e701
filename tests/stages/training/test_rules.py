"""Whatever optimisers there are: what each declares is what it keeps; a declaration that lacks a part is refused."""

import ast
from pathlib import Path
from types import ModuleType

import pytest
import torch
from optimizers import optimizer
from pydantic import ValidationError
from torch import Tensor, nn

from vitpipe.stages.training.checkpoint.state_files import AVERAGE
from vitpipe.stages.training.config import WEIGHT
from vitpipe.stages.training.optim.kinds import RULES, declared, kinds_of
from vitpipe.stages.training.optim.rule import TAKEN, Dtype, OptimizerSettings
from vitpipe.stages.training.optim.torch_optimizer import STEP, RuleOptimizer, begin_state, build_optimizer

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


@pytest.mark.parametrize("state_dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_the_device_calls_off_changes_nothing_and_one_it_allows_all(kind: str, state_dtype: Dtype) -> None:
    rule = optimizer(kind=kind, state_dtype=state_dtype)
    plain, told = nn.Linear(7, 5), nn.Linear(7, 5)
    told.load_state_dict(plain.state_dict())
    made, asked = build_optimizer(plain, rule), build_optimizer(told, rule)
    for parameter in told.parameters():
        begin_state(asked, rule, parameter)
    for step, bad in enumerate((0, 1, 0)):
        gradients(told, step)
        asked.found_inf = torch.tensor(float(bad))  # type: ignore[attr-defined]
        asked.step()
        if not bad:
            gradients(plain, step)
            made.step()
        elif isinstance(asked, RuleOptimizer):
            asked.take_back()
        for one, other in zip(plain.parameters(), told.parameters(), strict=True):
            assert torch.equal(one, other)
            for name, kept in made.state[one].items():
                assert torch.equal(kept, asked.state[other][name]), (step, name)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_saves_bytes_or_is_refused(kind: str) -> None:
    try:
        lean = optimizer(kind=kind, state_dtype="bf16")
    except ValidationError as error:
        assert "keeps nothing in bf16" in str(error)
    else:
        assert lean.moment_bytes < optimizer(kind=kind).moment_bytes


def test_the_first_moment_alone_is_lean() -> None:
    assert [optimizer(kind=kind, state_dtype="bf16").moment_bytes for kind in ("adamw", "sgd", "lion")] == [6, 2, 2]


def updated(rule: OptimizerSettings, cuts: tuple[int, ...], updates: int) -> list[Tensor]:
    """Weights and moments of one tensor after an update, made in pieces of these lengths."""
    made = torch.Generator().manual_seed(0)
    weight, grad, *moments = (torch.rand(12, generator=made) + 0.1 for _ in range(2 + len(rule.moments)))
    pieces = [one.split(cuts) for one in (weight, grad, *moments)]
    for own, its, *kept in zip(*pieces, strict=True):
        rule.update(own, its, dict(zip(rule.moments, kept, strict=True)), 0.01, updates)
    return [weight, *moments]


def is_cut_and_counted(rule: OptimizerSettings) -> tuple[bool, bool]:
    """Whether any cut of a weight gives the same numbers; whether the count of updates changes them."""
    whole, later = updated(rule, (12,), 3), updated(rule, (12,), 30)
    same = all(map(torch.equal, whole, updated(rule, (1, 4, 7), 3)))
    return same, not all(map(torch.equal, whole, later))


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_number_by_number_and_counts_where_it_says_so(kind: str) -> None:
    rule = optimizer(kind=kind)
    assert is_cut_and_counted(rule) == (True, rule.counts_updates)


def test_a_rule_of_a_norm_and_one_that_counts_unsaid_are_seen() -> None:
    text, step = NEW.read_text(), "weight.add_(moment.sign(), alpha=-lr)"
    for other, found in (
        ("weight.add_(moment / moment.norm(), alpha=-lr)", (False, False)),
        ("weight.add_(moment.sign(), alpha=-lr / updates)", (True, True)),
    ):
        rule = declared(module(text.replace(step, other)))
        rule.model_rebuild()
        assert is_cut_and_counted(rule(kind="signum")) == found and not rule.counts_updates


@pytest.mark.parametrize("name", [WEIGHT, AVERAGE, STEP])
def test_a_moment_that_has_the_name_of_something_else_is_refused(name: str) -> None:
    assert name in TAKEN
    rule = declared(module(NEW.read_text().replace("signum_momentum", name)))
    with pytest.raises(TypeError, match=f"signum calls a moment {name}"):
        rule(kind="signum")


def test_a_rule_without_moments_refuses_a_type_for_them() -> None:
    rule = declared(module(NEW.read_text().replace('{"signum_momentum": self.state_dtype}', "{}")))
    assert rule(kind="signum").moment_bytes == 0
    with pytest.raises(ValidationError, match="signum keeps nothing in bf16: leave state_dtype out"):
        rule(kind="signum", state_dtype="bf16")


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
