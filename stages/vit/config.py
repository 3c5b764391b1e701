"""What a model is, in a config: the variant's name or its sizes, and the paper's choices around it. No torch."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from stages.settings import Settings


class Sizes(Settings):
    """An encoder by its numbers (paper, Table 1)."""

    layers: PositiveInt
    """Encoder blocks."""
    width: PositiveInt
    """Hidden size (D in the paper)."""
    mlp: PositiveInt
    """Hidden size of the MLP block."""
    heads: PositiveInt
    """Attention heads; must divide the width."""
    patch_px: PositiveInt
    """Side of a square patch (P in the paper), pixels."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Sizes":
        if self.width % self.heads:
            rest = self.width % self.heads
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}: "
                f"{self.width} = {self.width // self.heads} x {self.heads} + {rest}"
            )
        return self


class ModelSettings(Settings):
    """An architecture. Parameters depend on nothing else."""

    variant: str | Sizes
    """A name of the paper's family such as `L/16`, or explicit `{layers, width, mlp, heads, patch_px}`."""
    image_px: PositiveInt
    """Side of the square input image, pixels. Not a multiple of the patch: the rest is dropped, as Google's VALID
    convolution does."""
    classes: PositiveInt | None = None
    """Size of the head; from the shards when left out."""
    representation: Literal["none", "width"] | PositiveInt = "none"
    """Hidden tanh layer between the pooled token and the head: none, the model's width, or a size (section 3.1)."""
    pool: Literal["cls", "gap", "map"] = "cls"
    """Class token, mean over tokens after the final norm, or attention pooling."""
    position: Literal["learned1d", "learned2d", "relative", "sincos2d", "none"] = "learned1d"
    """Position embedding (Table 8)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After the position embedding and after every dense layer but qkv (section B.1)."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Drop rate of the last block's branches, growing linearly from 0 at the first."""
    gelu: Literal["tanh", "erf"] = "erf"
    """The authors' JAX code uses the tanh approximation; timm, transformers and torchvision the exact erf."""
    norm_eps: float = Field(default=1e-6, gt=0)
    """LayerNorm epsilon; 1e-6 in the authors' code, 1e-12 in transformers."""

    @property
    def sizes(self) -> Sizes:
        """The variant's numbers."""
        return self.variant if isinstance(self.variant, Sizes) else parse_variant(self.variant)

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_px // self.sizes.patch_px

    @property
    def tokens(self) -> int:
        """Patches, and the class token where the model pools by it."""
        return self.grid**2 + (1 if self.pool == "cls" else 0)

    @property
    def feature_width(self) -> int:
        """Size of what the head sees: the representation, or the width where there is none."""
        return self.representation if isinstance(self.representation, int) else self.sizes.width

    @model_validator(mode="after")
    def _fits(self) -> "ModelSettings":
        patch_px = self.sizes.patch_px
        if self.image_px < patch_px:
            raise ValueError(f"image_px {self.image_px} is smaller than one patch of {patch_px} px")
        width = self.sizes.width
        if self.position == "sincos2d" and (width % 4 or width < 8):
            raise ValueError(f"position sincos2d needs a width that is a multiple of 4 and at least 8, not {width}")
        return self


_ENCODERS: dict[str, tuple[int, int, int, int]] = {  # layers, width, MLP, heads
    "Ti": (12, 192, 768, 3),  # vision_transformer configs/models.py; not in the paper
    "S": (12, 384, 1536, 6),  # likewise
    "B": (12, 768, 3072, 12),  # paper, Table 1
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
    "g": (40, 1408, 6144, 16),  # big_vision models/vit.py (Scaling Vision Transformers)
    "G": (48, 1664, 8192, 16),
}
VARIANTS = ("Ti/16", "S/16", "S/32", "B/8", "B/16", "B/32", "L/16", "L/32", "H/14", "g/14", "G/14")


def parse_variant(name: str) -> Sizes:
    """Look a paper name up. ValueError naming all known variants for any other."""
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}; known: {', '.join(VARIANTS)}, or explicit sizes")
    encoder, patch_px = name.split("/")
    layers, width, mlp, heads = _ENCODERS[encoder]
    return Sizes(layers=layers, width=width, mlp=mlp, heads=heads, patch_px=int(patch_px))
