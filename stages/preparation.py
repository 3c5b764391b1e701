"""How an image of any size gets to the size that a model takes: a fact of weights, said by whoever made them. Knows no
pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from vitpipe.infra.errors import IntegrityError

PREPARATION = "preparation.json"
"""The file of weights that says it; there is none where their makers said nothing that we can take."""
Fit = Literal["squash", "resize_crop", "resmall_crop"]
"""How an image gets to image_px: squashed to a square; squashed to `resize_px` and its centre cut; or its shorter side
resized to `resize_px` and its centre cut."""
EvalFit = Literal["squash", "resize_crop", "resmall_crop", "area_small"]
"""The same of a recipe, and area_small: the shorter side by area, as big_vision's resize_small, and the centre cut."""
OTHER_NAMES = {"resize_small": "resmall_crop"}
"""What else one may write; it is kept under the one name."""
EvalResize = Annotated[
    EvalFit,
    BeforeValidator(lambda name: OTHER_NAMES.get(name, name) if isinstance(name, str) else name),
    WithJsonSchema({"enum": [*get_args(EvalFit), *OTHER_NAMES], "type": "string"}),
]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
"""Pillow's names of its filters, all of which smooth before they shrink but for `nearest`."""


class Preparation(BaseModel):
    """One way of an image, as a file beside weights says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: Fit = "squash"
    resize_px: int | None = Field(default=None, ge=1)
    """Side before the centre is cut, pixels; None for `squash`."""
    interpolation: Interpolation = "bilinear"
    centre: Literal["down", "even"] = "down"
    """Where the middle lies when half a pixel is over: rounded down, or to the even one as torchvision does."""

    def at(self, image_px: int, own_px: int) -> Self:
        """The same way to another size than the model's own, both in pixels."""
        side = self.resize_px and max(image_px, round(self.resize_px * image_px / own_px))
        return self.model_copy(update={"resize_px": side})

    def __str__(self) -> str:
        """In words: `resmall_crop from 256 px, bicubic`."""
        before = f" from {self.resize_px} px" if self.resize_px else ""
        return f"{self.fit}{before}, {self.interpolation}"


@dataclass(frozen=True)
class EvalWay:
    """Everything about how an image gets to a model's size when it is scored."""

    fit: EvalFit | Preparation
    """A recipe's, or what the makers of the weights say, which is all of it."""
    resize_px: int | None = None
    """Side before the centre is cut; by `before_crop_px` where it is None."""
    antialias: bool = True
    """Low-pass before shrinking; area_small always averages."""

    def facts(self) -> dict[str, Any]:
        """What tells two ways apart, for names of what was made and for a score's protocol."""
        if isinstance(self.fit, Preparation):
            return {"eval_resize": "weights", "preparation": self.fit.model_dump()}
        facts: dict[str, Any] = {"eval_resize": self.fit}
        if not self.antialias and self.fit != "area_small":
            facts["antialias"] = False
        return facts | ({"crop_px": self.resize_px} if self.resize_px else {})


def as_tested(protocol: Mapping[str, Any], image_px: int | None = None) -> EvalWay:
    """How a fine-tuning tested its weights, by its score's protocol; squashed to a square where nothing is told."""
    fit: EvalFit = next((known for known in get_args(EvalFit) if known == protocol.get("eval_resize")), "squash")
    side, own_px = protocol.get("crop_px"), protocol.get("image_px")
    if side and image_px and own_px and image_px != own_px:
        side = max(image_px, round(side * image_px / own_px))
    return EvalWay(fit, side, protocol.get("antialias", True))


def read_preparation(content: Any, where: str) -> Preparation:
    """Understand what `preparation.json` holds. IntegrityError where it is none."""
    try:
        return Preparation.model_validate(content)
    except ValidationError as error:
        found = f"{PREPARATION} says {content}, which is no way of an image"
        raise IntegrityError(f"read {where}", found, "fetch or convert it again") from error
