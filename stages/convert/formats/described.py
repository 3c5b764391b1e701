"""What the files beside foreign weights say of them, and the words that several formats say it in. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.classes import names_in_order

Triple = tuple[float, float, float]
_GELU: dict[str, Literal["tanh", "erf"]] = {
    "gelu": "erf", "gelu_python": "erf", "gelu_new": "tanh", "gelu_tanh": "tanh", "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh", "gelu_fast": "tanh", "gelu_erf": "erf",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """Facts that tensors do not show; None where no file says them."""

    heads: int | None = None
    gelu: Literal["tanh", "erf"] | None = None
    norm_eps: float | None = None
    image_px: int | None = None
    mean: Triple | None = None
    std: Triple | None = None
    labels: tuple[str, ...] = ()
    pooled: str | None = None
    """timm's `global_pool`."""
    model: Mapping[str, Any] | None = None
    """Our own settings, from `model.json`."""
    notes: tuple[str, ...] = ()
    """What a person should know of them."""


def known_gelu(name: str, asked: str) -> Literal["tanh", "erf"]:
    """Which GELU a library's name for it means. UsageError for another function."""
    if name not in _GELU:
        found = f"its activation is {name}, known are {', '.join(sorted(_GELU))}"
        raise UsageError(asked, found, "the model would be another function: it cannot be converted")
    return _GELU[name]


def triple(value: Any) -> Triple | None:
    """Three numbers for the three colours, as JSON has them; TypeError or ValueError for anything else."""
    if value is None:
        return None
    red, green, blue = (float(one) for one in value)
    return red, green, blue


def ordered_names(said: Mapping[str, Any], file: str, asked: str) -> tuple[str, ...]:
    """The names of `id2label` in the order of its numbers, not as they stand there. UsageError where it has gaps."""
    try:
        return names_in_order(said.get("id2label") or {})
    except ValueError as error:
        do = f"correct id2label in {file}, or take it out: its classes then have numbers alone"
        raise UsageError(asked, f"the file {file} beside it does not say which class is which: {error}", do) from error
