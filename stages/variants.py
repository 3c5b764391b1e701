"""The model variants by name: plain ViTs, hybrids and BiT ResNets, each with its numbers. No torch."""

import difflib
import functools
from dataclasses import dataclass
from typing import Literal

from pydantic import model_validator

from vitpipe.stages.bounds import Layers, Side, Width
from vitpipe.stages.settings import Settings

Family = Literal["vit", "hybrid", "resnet"]


class Sizes(Settings):
    """An encoder by its numbers (paper, Table 1)."""

    layers: Layers
    """Encoder blocks."""
    width: Width
    """Hidden size (D in the paper)."""
    mlp: Width
    """Hidden size of the MLP block."""
    heads: Width
    """Attention heads; must divide the width."""
    patch_px: Side
    """Side of a square patch (P in the paper), pixels."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Sizes":
        if rest := self.width % self.heads:
            division = f"{self.width} = {self.width // self.heads} x {self.heads} + {rest}"
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}: {division}")
        return self


@dataclass(frozen=True)
class ResNet:
    """A BiT ResNet by its numbers: bottleneck units in each stage, and the factor of its width of 64."""

    blocks: tuple[int, ...]
    width_factor: int

    @property
    def features(self) -> int:
        """Channels of the last stage: 2048 for a width factor of 1."""
        return 4 * BASE_WIDTH * self.width_factor << (len(self.blocks) - 1)


@dataclass(frozen=True)
class Variant:
    """A model variant: an encoder, perhaps on a convolutional stem, or a ResNet.

    `stem` has the number of units of each stage and is empty for a root alone; a hybrid's `sizes.patch_px` is the side
    of a patch on the stem's feature map.
    """

    sizes: Sizes | None = None
    stem: tuple[int, ...] | None = None
    resnet: ResNet | None = None

    @property
    def family(self) -> Family:
        """`vit`, `hybrid` or `resnet`."""
        if self.resnet is not None:
            return "resnet"
        return "vit" if self.stem is None else "hybrid"

    @property
    def patch_channels(self) -> int:
        """Channels of what is cut into patches: an image's 3, or those of the stem's last stage or of its root."""
        if self.stem is None:
            return 3
        return 4 * BASE_WIDTH << (len(self.stem) - 1) if self.stem else BASE_WIDTH

    def grid(self, image_px: int) -> int:
        """Count patches, or pixels of a ResNet's last feature map, along one side of an image."""
        if self.sizes is None:
            assert self.resnet is not None
            return reduced(image_px, self.resnet.blocks)
        side = image_px if self.stem is None else reduced(image_px, self.stem)
        return side // self.sizes.patch_px


BASE_WIDTH = 64
"""Channels of the root, and of the narrow convolutions of the first stage, at a width factor of 1."""
_ENCODERS: dict[str, tuple[int, int, int, int]] = {  # layers, width, MLP, heads
    "Ti": (12, 192, 768, 3),  # vision_transformer configs/models.py; not in the paper
    "S": (12, 384, 1536, 6),  # likewise
    "B": (12, 768, 3072, 12),  # paper, Table 1
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
    "g": (40, 1408, 6144, 16),  # big_vision models/vit.py (Scaling Vision Transformers)
    "G": (48, 1664, 8192, 16),
}
PLAIN = ("Ti/16", "S/16", "S/32", "B/8", "B/16", "B/32", "L/16", "L/32", "H/14", "g/14", "G/14")
HYBRIDS: dict[str, tuple[str, tuple[int, ...], int]] = {  # encoder, stem, patch on the stem's feature map
    "R50+B/16": ("B", (3, 4, 9), 1),  # section 4.1: stage 4 removed, and as many layers put into stage 3
    "R50+B/32": ("B", (3, 4, 6, 3), 1),  # the output of the regular stage 4
    "R50+L/16": ("L", (3, 4, 9), 1),
    "R50+L/32": ("L", (3, 4, 6, 3), 1),
    "R26+S/32": ("S", (2, 2, 2, 2), 1),  # vision_transformer configs/models.py; not in the paper
    "R+Ti/16": ("Ti", (), 8),  # likewise; in fact 32 px: the root halves twice, and patches are 8 wide
}
RESNETS = {
    "R50x1": ResNet((3, 4, 6, 3), 1),  # section 4.1 and BiT
    "R50x2": ResNet((3, 4, 6, 3), 2),
    "R101x1": ResNet((3, 4, 23, 3), 1),
    "R152x1": ResNet((3, 8, 36, 3), 1),
    "R152x2": ResNet((3, 8, 36, 3), 2),
    "R200x3": ResNet((3, 24, 36, 3), 3),
}
VARIANTS = (*PLAIN, *HYBRIDS, *RESNETS)


def reduced(image_px: int, stages: tuple[int, ...]) -> int:
    """Compute the side of the feature map after a root (two halvings) and stages (one each, but for the first).

    Each halving rounds up, as SAME padding does, and the ResNets' symmetric padding too.
    """
    halvings = 2 + max(0, len(stages) - 1)
    return -(-image_px >> halvings)


@functools.cache
def find_variant(name: str) -> Variant:
    """Look up a variant by its name. ValueError naming the nearest and all known variants for an unknown one."""
    if name in RESNETS:
        return Variant(resnet=RESNETS[name])
    if name in HYBRIDS:
        encoder, stem, patch = HYBRIDS[name]
        return Variant(sizes=_sizes(encoder, patch), stem=stem)
    if name not in PLAIN:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown variant {name!r}{hint} (known: {', '.join(VARIANTS)}, or explicit sizes)")
    encoder, patch_px = name.split("/")
    return Variant(sizes=_sizes(encoder, int(patch_px)))


def _sizes(encoder: str, patch_px: int) -> Sizes:
    layers, width, mlp, heads = _ENCODERS[encoder]
    return Sizes(layers=layers, width=width, mlp=mlp, heads=heads, patch_px=patch_px)
