"""What a library is asked to prove weights: its files, and images, which it prepares by itself where the files say how.
Knows no library. Shapes: B images, T tokens, D width, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitpipe.stages.model_settings import ModelSettings

Outputs = Mapping[str, Tensor]
"""`pooled` (B, D), before any representation layer; `features`, what enters the head, which a head of zeros would hide;
`logits` (B, K); `encoded` (1, T, D), the encoder's answer to quiet tokens; `prepared` (3, H, W), the photo brought to
the model's size, as bytes. Libraries give those that they have."""
Answer = tuple[str, Outputs]
"""The library's name and version, and what its model gives."""


class Unavailable(Exception):
    """No library can be asked; says why."""


@dataclass(frozen=True)
class Question:
    """What a library is given: files, and images to feed their model."""

    settings: ModelSettings
    tensors: tuple[Path, ...]
    config: Path | None
    """`config.json` beside them, in a folder that the library reads."""
    images: Tensor
    """(B, 3, H, W), normalised as the files' users do; (B, 1, H, W) for a model of grey images."""
    all_bf16: bool
    """Whether every array of an npz is raw bf16."""
    is_ours: bool
    """Whether we wrote them: what they do not say is then as the library usually has it, else as the settings say."""
    is_overruled: bool = False
    """Whether the recipe asks for another function than the config."""
    pixels: Tensor | None = None
    """The images as bytes, where something of the library says what becomes of them, and the recipe says nothing else:
    it is asked to do that by itself."""
    photo: Tensor | None = None
    """(3, H, W) of bytes, of another size and not square, where the folder says how an image gets to the model's."""


def quiet_tokens(settings: ModelSettings) -> Tensor:
    """Tokens (1, T, D) of variance 1e-6, where another LayerNorm epsilon shows: trained ones are too large for it.
    ValueError for a ResNet."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, settings.tokens, settings.sizes.width, generator=generator) * 1e-3


def library(name: str) -> Any:
    """Import a library, or a part of it. Unavailable where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name.split('.')[0]} is not installed: pip install 'vitpipe[parity]'") from error


def version(library: Any) -> str:
    """Name and version, as proofs say them."""
    return f"{library.__name__} {library.__version__}"
