"""The optimisers there are: one of each file in `rules/`, found by looking into that folder.

Knows none by name but the one that a config means which names none. A file that leaves a part of its declaration out
is an error here, when any config is read. No torch.
"""

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

from pydantic import Discriminator, Tag

from vitpipe.stages.training.optim import rules
from vitpipe.stages.training.optim.rule import OptimizerSettings

USUAL = "adamw"
"""The kind that a config means which names none."""


def declared(module: ModuleType) -> type[OptimizerSettings]:
    """The optimiser of a module of `rules/`. TypeError naming what it lacks."""
    own = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    found = [one for one in own if issubclass(one, OptimizerSettings)]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} has {len(found)} subclasses of OptimizerSettings: a file declares one")
    missing = [*sorted(found[0].__abstractmethods__), *([] if kinds_of(found[0]) else ["kind: Literal[...]"])]
    if missing:
        raise TypeError(f"{module.__name__}: {found[0].__name__} does not declare {', '.join(missing)}")
    if USUAL not in kinds_of(found[0]) and not found[0].model_fields["kind"].is_required():
        raise TypeError(f"{module.__name__}: its kind has a default, but a config that names none means {USUAL}")
    return found[0]


def kinds_of(rule: type[OptimizerSettings]) -> tuple[str, ...]:
    """The words that `optimizer.kind` has for it."""
    return get_args(rule.model_fields["kind"].annotation)


_FILES = sorted(Path(__file__).parent.glob("rules/[!_]*.py"))
RULES = tuple(declared(import_module(f"{rules.__name__}.{path.stem}")) for path in _FILES)


def kind(value: Any) -> str:
    """The kind that a section of a config means."""
    return str(value.get("kind", USUAL) if isinstance(value, dict) else getattr(value, "kind", USUAL))


def rule_of(kind: str) -> type[OptimizerSettings]:
    """The optimiser of a kind. KeyError for an unknown one."""
    return {one: rule for rule in RULES for one in kinds_of(rule)}[kind]


if TYPE_CHECKING:
    Kind = str
    AnyOptimizer = OptimizerSettings
else:
    Kind = Literal[tuple(one for rule in RULES for one in kinds_of(rule))]
    AnyOptimizer = Annotated[
        Union[tuple(Annotated[rule, Tag(one)] for rule in RULES for one in kinds_of(rule))],  # noqa: UP007
        Discriminator(kind),
    ]
"""A section `optimizer` of a config: fields and their bounds are those of its kind."""
