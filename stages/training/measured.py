"""A line of `evaluation.jsonl`, as numbers by name. No torch."""

from collections.abc import Mapping
from typing import Any


def measured(fields: Mapping[str, Any]) -> dict[str, float]:
    """`validation/loss`, `validation/accuracy`, `fewshot/cifar10/5`: those that the line has."""
    found = {f"validation/{name}": fields.get(name) for name in ("loss", "accuracy")}
    for probe, accuracies in fields.get("fewshot", {}).items():
        found |= {f"fewshot/{probe}/{shots}": accuracy for shots, accuracy in accuracies.items()}
    return {name: value for name, value in found.items() if value is not None}
