"""How training images are cut and varied, as a config section. No torch."""

from typing import Literal

from pydantic import Field, model_validator

from vitpipe.stages.bounds import Border, Concentration, Side
from vitpipe.stages.settings import Settings


class RandAugmentSettings(Settings):
    """RandAugment (Cubuk et al. 2019) with torchvision's operations."""

    layers: int = Field(default=2, ge=1, le=100)
    """Operations applied one after another."""
    magnitude: float = Field(default=10, ge=0, le=30)
    """Strength on the scale of 0 to 30 of the AugReg paper."""


class AugmentSettings(Settings):
    """Changes to an image between its file and the model. Every draw is keyed by (seed, position)."""

    crop: Literal["random_resized", "inception", "resmall", "resize", "pad", "none"] = "random_resized"
    """random_resized: torchvision's RandomResizedCrop. inception: TensorFlow's sample_distorted_bounding_box, what the
    paper's authors ran. resmall: the shorter side to `resize_px`, then a random crop. resize: squashed to a square of
    `resize_px`, then a random crop. pad: squashed to `image_px`, a black border of `pad_px`, then a random crop, as
    torchvision's RandomCrop(padding). none: squashed to `image_px` where it has another size."""
    min_area: float | None = Field(default=None, gt=0, le=1)
    """Smallest share of the image that random_resized and inception may cut; left out, 0.08 and 0.05."""
    resize_px: Side | None = None
    """Side before the random crop of resmall and resize, pixels; left out, as `before_crop_px` says."""
    pad_px: Border | None = None
    """Border of the crop `pad`, pixels: an image is shifted by at most so many; left out, 4."""
    antialias: bool = True
    """Low-pass before shrinking, as Pillow does; the authors' TensorFlow pipeline did not."""
    flip: bool = True
    """Mirror left-right with probability 1/2."""
    randaugment: RandAugmentSettings | None = None
    """Random photometric and geometric operations after the crop (AugReg paper, section 3)."""
    mixup: Concentration = 0.0
    """Alpha of the Beta distribution that blends images 2k and 2k+1 of the sequence; 0 is off."""
    cutmix: Concentration = 0.0
    """Alpha of the Beta distribution for the share of a pasted box, within the same pairs; 0 is off. With mixup too,
    each pair draws one of the two."""

    @model_validator(mode="after")
    def _pads(self) -> "AugmentSettings":
        if reason := pads_in_vain(self.pad_px, self.crop):
            raise ValueError(reason)
        return self

    @property
    def mixes(self) -> bool:
        """Whether Mixup or CutMix is on, so that labels become mixtures."""
        return self.mixup > 0 or self.cutmix > 0


def pads_in_vain(pad_px: int | None, crop: str) -> str | None:
    """Say why a border means nothing to a crop; None where it does, or none is given."""
    if pad_px is None or crop == "pad":
        return None
    return f"pad_px {pad_px} has no meaning for crop {crop!r}; it belongs to pad"


def too_small(resize_px: int | None, image_px: int | None) -> str | None:
    """Say why a crop of `image_px` cannot be cut from a side of `resize_px`; None where it can or is not known."""
    if resize_px is None or image_px is None or resize_px >= image_px:
        return None
    return f"a crop of {image_px} px cannot be cut from a side of {resize_px} px"


def before_crop_px(image_px: int) -> int:
    """Side to resize to before a crop of `image_px`: the authors' 256 for 224 (8/7) and 448 for 384."""
    return 448 if image_px == 384 else round(image_px * 8 / 7)
