"""An architecture in a config or an artifact: the variant's name or sizes, and the paper's choices. No torch."""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from vitpipe.stages.bounds import Classes, Epsilon, LayerScale, Registers, RopeBase, Side, Width
from vitpipe.stages.settings import Settings
from vitpipe.stages.variants import Family, ResNet, Sizes, Variant, find_variant, reduced

KeptBranches = Literal["scaled", "unscaled"]


class Rope(Settings):
    """Rotary positions: queries and keys of patches are turned by angles of their place (Su et al. 2021)."""

    kind: Literal["eva02", "dinov3"]
    """Angles and pairs as the two families have them: `eva02` counts patches and turns neighbouring numbers, `dinov3`
    takes places in [-1, 1] and turns the halves of a head."""
    base: RopeBase | None = None
    """The longest wave grows with it; 10000 for eva02, 100 for dinov3 when left out."""
    grid: Side | None = None
    """Of eva02: patches along a side at which it was pretrained; places on another grid are scaled to it. Left out:
    places are counted as they are."""

    @property
    def theta(self) -> float:
        """The base, or its kind's."""
        return self.base or {"eva02": 10_000.0, "dinov3": 100.0}[self.kind]

    def __str__(self) -> str:
        """In words: `eva02 of base 10000 for a grid of 16`."""
        return f"{self.kind} of base {self.theta:g}" + (f" for a grid of {self.grid}" if self.grid else "")

    @model_validator(mode="after")
    def _of_its_kind(self) -> "Rope":
        if self.kind == "dinov3" and self.grid is not None:
            raise ValueError("grid is of rope kind eva02: dinov3 takes places in [-1, 1] on every grid; leave it out")
        return self


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
    """Class token, mean over the patches' tokens after the final norm, or attention pooling of them."""
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
    gelu: Literal["tanh", "erf", "quick"] = "erf"
    """The authors' JAX code uses the tanh approximation; timm, transformers and torchvision the exact erf; OpenAI's
    CLIP x sigmoid(1.702 x)."""
    norm_eps: Epsilon = 1e-6
    """LayerNorm epsilon; 1e-6 in the authors' code, 1e-12 in transformers, 1e-5 in CLIP and DINOv3."""
    class_token: bool | None = None
    """Whether a class token stands before the patches; when left out, where the pool is `cls`."""
    registers: Registers = 0
    """Learned tokens between class token and patches that no head sees (Darcet et al. 2023: 4)."""
    no_embed_class: bool = False
    """Whether the class token has no position of its own, so that the learned table is of patches alone (DeiT-III)."""
    pre_norm: bool = False
    """LayerNorm of the embedded tokens before the first block (CLIP)."""
    qk_norm: bool = False
    """LayerNorm of each head's queries and keys."""
    layer_scale: LayerScale | None = None
    """Value that a scale of each channel of each branch starts at (CaiT; DeiT-III, DINOv2: 1e-5); none when left out.
    """
    mlp_kind: Literal["gelu", "swiglu"] = "gelu"
    """`swiglu`: the hidden layer is a product of two dense layers, one behind SiLU; `mlp` is the width of each."""
    mlp_norm: bool = False
    """LayerNorm of the hidden layer before the second dense layer (EVA-02 from B on)."""
    pool_norm: bool = False
    """Whether the final norm comes behind the pooling instead of before it (timm's fc_norm: EVA-02, BEiT)."""
    rope: Rope | None = None
    """Rotary positions, beside `position`, which may be `none` (EVA-02, DINOv3)."""

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
    def has_class_token(self) -> bool:
        """Whether a class token stands first; a ResNet has none."""
        return self.resnet is None and (self.pool == "cls" if self.class_token is None else self.class_token)

    @property
    def prefix(self) -> int:
        """Tokens before the patches: class token and registers."""
        return self.has_class_token + self.registers

    @property
    def tokens(self) -> int:
        """Number of patches, and of the tokens before them."""
        return self.grid**2 + self.prefix

    @property
    def position_rows(self) -> int:
        """Rows of a learned table: one a patch, and one of the class token where it has a position."""
        return self.grid**2 + (self.has_class_token and not self.no_embed_class)

    @property
    def feature_width(self) -> int:
        """Size of what the head sees: the representation, or the width where there is none."""
        if self.resnet is not None:
            return self.resnet.features
        return self.representation if isinstance(self.representation, int) else self.sizes.width

    @property
    def later_parts(self) -> dict[str, Any]:
        """What it has of `LATER_PARTS`, by name."""
        return {name: value for name, value in self.model_dump(mode="json").items() if name in LATER_PARTS}

    @property
    def numbers(self) -> Variant:
        """The numbers that `variant` stands for."""
        return Variant(sizes=self.variant) if isinstance(self.variant, Sizes) else find_variant(self.variant)

    @model_serializer(mode="wrap")
    def _plain_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the later parts that a model does not have: what is said of a plain ViT stays what it was."""
        dumped: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unused = {name for name in LATER_PARTS if getattr(self, name) == fields[name].default}
        return {name: value for name, value in dumped.items() if name not in unused}

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
        if wrong := self._contradiction():
            raise ValueError(wrong)
        return self

    def _contradiction(self) -> str:
        """Two fields of which one leaves the other no meaning, in words; empty where there are none."""
        head = self.sizes.width // self.sizes.heads
        if self.rope and head % 4:
            return f"rope needs heads whose width is a multiple of 4: {self.sizes.width} / {self.sizes.heads} = {head}"
        if self.pool == "cls" and not self.has_class_token:
            return "pool cls takes the class token, and class_token is false; take pool gap or map"
        if self.no_embed_class and not (self.has_class_token and self.position == "learned1d"):
            return "no_embed_class is of a class token beside position learned1d; leave it out"
        if self.pool_norm and self.pool == "map":
            return "pool_norm is of pool cls and gap, and pool map has a norm of its own; leave it out"
        if self.registers and self.position == "relative":
            return "position relative counts all tokens in a row, in which registers have no place; take another"
        return ""

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


def other_function(old: ModelSettings, new: ModelSettings) -> str:
    """Say which settings would make the weights of `old` another function as `new`; empty where none do."""
    names = ("pool", "position", "gelu", "norm_eps", *LATER_PARTS)
    differing = [name for name in names if _meant(old, name) != _meant(new, name)]
    differing = ["variant"] * (old.numbers != new.numbers) + differing
    said = (f"{name} {getattr(old, name)} -> {getattr(new, name)}" for name in differing)
    return f"it would be another function: {'; '.join(said)}" if differing else ""


def _meant(model: ModelSettings, name: str) -> Any:
    """What a field means for trained weights: where a scale started no longer matters, nor who said a base."""
    value = getattr(model, name)
    if name == "layer_scale":
        return value is not None
    return str(value) if isinstance(value, Rope) else value


LATER_PARTS = (
    "class_token", "registers", "no_embed_class", "pre_norm", "qk_norm", "layer_scale", "mlp_kind", "mlp_norm",
    "pool_norm", "rope",
)  # fmt: skip
"""Fields of what a plain ViT of the paper does not have; formats that hold such alone refuse any of them."""
_OF_ALL_FAMILIES = ("variant", "image_px", "classes", "stochastic_depth", "kept_branches")
