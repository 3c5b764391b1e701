"""A section `optimizer` of a config, read as a config reads it."""

from typing import Any

from pydantic import TypeAdapter

from vitpipe.stages.training.optim.kinds import AnyOptimizer
from vitpipe.stages.training.optim.rule import OptimizerSettings


def optimizer(**fields: Any) -> OptimizerSettings:
    """The settings of the kind that the fields name."""
    found: OptimizerSettings = TypeAdapter(AnyOptimizer).validate_python(fields)
    return found
