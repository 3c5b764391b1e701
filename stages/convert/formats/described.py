"""What the files beside foreign weights say of them, and the words that several formats say it in. No torch."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.classes import names_by_number, names_in_order
from vitpipe.stages.model_settings import Rope
from vitpipe.stages.preparation import Preparation

Triple = tuple[float, float, float]
Prepared = tuple[Preparation | None, str]
"""How an image gets to a model's size; or None, and what a person should know of it."""
Gelu = Literal["tanh", "erf", "quick"]
_GELU: dict[str, Gelu] = {
    "gelu": "erf", "gelu_python": "erf", "gelu_new": "tanh", "gelu_tanh": "tanh", "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh", "gelu_fast": "tanh", "gelu_accurate": "tanh", "gelu_erf": "erf",
    "quick_gelu": "quick",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """Facts that tensors do not show; None where no file says them."""

    heads: int | None = None
    gelu: Gelu | None = None
    norm_eps: float | None = None
    image_px: int | None = None
    mean: Triple | None = None
    std: Triple | None = None
    unclear: str | None = None
    """Why nobody can tell what pixels become, although a file says something of it: the recipe has to."""
    preparation: Callable[[int], Prepared] | None = None
    """How an image gets to the model's size, once that is known."""
    labels: tuple[str, ...] = ()
    first: int = 0
    """Number of the first label's class."""
    sigmoid: bool = False
    """Whether each class was learned by itself."""
    pooled: str | None = None
    """timm's `global_pool`."""
    registers: int | None = None
    layer_scale: float | None = None
    """What its scales started at."""
    rope: Rope | None = None
    """Rotary positions; no tensor shows any."""
    says_rope: bool = False
    """Whether a file says of these, were it that there are none."""
    position: Literal["none"] | None = None
    """Said where there are no positions at all."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """What tensors show too, by the names of `Sizes`: other tensors are another model's."""
    representation_act: str | None = None
    """What stands behind the layer between pooled token and head, where it is not tanh."""
    model: Mapping[str, Any] | None = None
    """Our own settings, from `model.json`."""
    notes: tuple[str, ...] = ()
    """What a person should know of them."""


def known_gelu(name: Any, asked: str) -> Gelu:
    """Which GELU a library's name for it means. UsageError for another function."""
    if name not in _GELU:
        found = f"its activation is {name}, known are {', '.join(sorted(_GELU))}"
        raise UsageError(asked, found, "the model would be another function: it cannot be converted")
    return _GELU[name]


def triple(value: Any) -> Triple | None:
    """Three numbers for the three colours, as JSON has them, or one for all; TypeError or ValueError for others."""
    if value is None:
        return None
    numbers = [float(one) for one in (value if isinstance(value, Iterable) else [value])]
    if len(numbers) not in (1, 3):
        raise ValueError(f"{value} is neither one number nor three, one for each colour")
    red, green, blue = numbers if len(numbers) == 3 else numbers * 3
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f"{value} are no numbers that pixels could be normalised by")
    return red, green, blue


def square(value: Any, what: str, asked: str) -> int | None:
    """One side of a number or a pair, as configs write it; None for anything else. UsageError for an oblong."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value):
        if value[0] != value[1]:
            found = f"its {what} is {value[0]} x {value[1]}"
            raise UsageError(asked, found, "name a model of square images and patches")
        value = value[0]
    return value if type(value) is int else None


def ordered_names(said: Mapping[str, Any], file: str, asked: str) -> tuple[tuple[str, ...], int]:
    """The names of `id2label` in the order of its numbers, not as they stand there, and the first number, 0 or 1.

    UsageError where it has gaps.
    """
    labels = said.get("id2label") or {}
    try:
        names = names_by_number(labels)
        if names and min(names) == 1 and max(names) == len(names):
            return tuple(names.values()), 1
        return names_in_order(labels), 0
    except ValueError as error:
        do = f"correct id2label in {file}, or take it out: its classes then have numbers alone"
        raise UsageError(asked, f"the file {file} beside it does not say which class is which: {error}", do) from error
