"""How an image of any size gets to the size that a model takes: a fact of weights, said by whoever made them. Knows no
pixels.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitpipe.infra.errors import IntegrityError

PREPARATION = "preparation.json"
"""The file of weights that says it; there is none where their makers said nothing that we can take."""
Fit = Literal["squash", "resize_crop", "resmall_crop"]
"""How an image gets to image_px: squashed to a square; squashed to `resize_px` and its centre cut; or its shorter side
resized to `resize_px` and its centre cut."""
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


def read_preparation(content: Any, where: str) -> Preparation:
    """Understand what `preparation.json` holds. IntegrityError where it is none."""
    try:
        return Preparation.model_validate(content)
    except ValidationError as error:
        found = f"{PREPARATION} says {content}, which is no way of an image"
        raise IntegrityError(f"read {where}", found, "fetch or convert it again") from error
