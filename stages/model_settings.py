"""An architecture in a config or an artifact: the variant's name or sizes, and the paper's choices. No torch."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from vitpipe.stages.bounds import Classes, Epsilon, Side, Width
from vitpipe.stages.settings import Settings
from vitpipe.stages.variants import Family, ResNet, Sizes, Variant, find_variant, reduced

KeptBranches = Literal["scaled", "unscaled"]


class ModelSettings(Settings):
    """A model's architecture. Names and shapes of its parameters depend on nothing else."""

    variant: str | Sizes
    """A name of the paper's family: a ViT such as `L/16`, a hybrid such as `R50+B/16`, a BiT ResNet such as `R152x2`;
    or a ViT by its numbers, `{layers, width, mlp, heads, patch_px}`."""
    image_px: Side
    """Side of the square input image, pixels. Not a multiple of the patch: the rest is dropped, as Google's VALID
    convolution does."""
    classes: Classes | None = None
    """Size of the head; from the shards when left out. 0: an encoder without one, as masked patches leave it."""
    representation: Literal["none", "width"] | Width = "none"
    """Hidden tanh layer between the pooled token and the head: none, the model's width, or a size (section 3.1)."""
    pool: Literal["cls", "gap", "map"] = "cls"
    """Class token, mean over tokens after the final norm, or attention pooling."""
    position: Literal["learned1d", "learned2d", "relative", "sincos2d", "none"] = "learned1d"
    """Position embedding (Table 8)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After the position embedding and after every dense layer but qkv (section B.1)."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Drop rate of the last block's branches, growing linearly from 0 at the first."""
    kept_branches: KeptBranches = "scaled"
    """What stochastic depth does to a branch that it keeps. scaled: divides it by its probability, so that the mean
    stays (timm's and torchvision's). unscaled: nothing, as the authors' code (big_vision models/mlp_mixer.py,
    _stoch_depth_mask; that of their ViTs is not published)."""
    gelu: Literal["tanh", "erf"] = "erf"
    """The authors' JAX code uses the tanh approximation; timm, transformers and torchvision the exact erf."""
    norm_eps: Epsilon = 1e-6
    """LayerNorm epsilon; 1e-6 in the authors' code, 1e-12 in transformers."""

    def at(self, image_px: int | None) -> Self:
        """Change the side of the input image, where one is given; not validated."""
        return self.model_copy(update={"image_px": image_px or self.image_px})

    @property
    def family(self) -> Family:
        """`vit`, `hybrid` or `resnet`."""
        return self.numbers.family

    @property
    def sizes(self) -> Sizes:
        """The encoder's numbers; a hybrid's patches lie on its stem's feature map. ValueError for a ResNet."""
        sizes = self.numbers.sizes
        if sizes is None:
            raise ValueError(f"{self.variant} is a ResNet and has no encoder: ask for `resnet` instead of `sizes`")
        return sizes

    @property
    def stem(self) -> tuple[int, ...] | None:
        """Units in each stage of a hybrid's stem, () for a root alone; None for other families."""
        return self.numbers.stem

    @property
    def resnet(self) -> ResNet | None:
        """The numbers of a ResNet; None for other families."""
        return self.numbers.resnet

    @property
    def grid(self) -> int:
        """Patches along one side; for a ResNet, pixels of its last feature map."""
        return self.numbers.grid(self.image_px)

    @property
    def tokens(self) -> int:
        """Number of patches, and the class token where the model has one."""
        return self.grid**2 + (1 if self.pool == "cls" and self.resnet is None else 0)

    @property
    def feature_width(self) -> int:
        """Size of what the head sees: the representation, or the width where there is none."""
        if self.resnet is not None:
            return self.resnet.features
        return self.representation if isinstance(self.representation, int) else self.sizes.width

    @property
    def numbers(self) -> Variant:
        """The numbers that `variant` stands for."""
        return Variant(sizes=self.variant) if isinstance(self.variant, Sizes) else find_variant(self.variant)

    @field_validator("variant")
    @classmethod
    def _known(cls, variant: str | Sizes) -> str | Sizes:
        if isinstance(variant, str):
            find_variant(variant)
        return variant

    @model_validator(mode="after")
    def _fits(self) -> "ModelSettings":
        if self.resnet is not None:
            return self._checked_resnet()
        patch_px = self.sizes.patch_px
        if self.grid < 1:
            where = "" if self.stem is None else f" on its feature map of {reduced(self.image_px, self.stem)} px"
            raise ValueError(f"image_px {self.image_px} is smaller than one patch of {patch_px} px{where}")
        width = self.sizes.width
        if self.position == "sincos2d" and (width % 4 or width < 8):
            raise ValueError(f"position sincos2d needs a width that is a multiple of 4 and at least 8, not {width}")
        return self

    def _checked_resnet(self) -> "ModelSettings":
        """Refuse, rather than ignore, choices of an encoder that mean nothing for a ResNet."""
        others = {name: field for name, field in type(self).model_fields.items() if name not in _OF_ALL_FAMILIES}
        given = {name: getattr(self, name) for name, field in others.items() if getattr(self, name) != field.default}
        meaningless = [f"{name} {value}" for name, value in given.items()]
        if meaningless:
            raise ValueError(
                f"{self.variant} is a ResNet, without tokens, GELU or LayerNorm, and always averages its last feature "
                f"map: {', '.join(meaningless)} has no meaning for it; leave it out"
            )
        return self


_OF_ALL_FAMILIES = ("variant", "image_px", "classes", "stochastic_depth", "kept_branches")
