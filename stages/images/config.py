"""How training images are cut and varied, as a config section. No torch."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vitpipe.stages.bounds import Border, Concentration, Side
from vitpipe.stages.settings import Settings

FULL_STRENGTH = {"torchvision": 30, "big_vision": 10, "timm": 10}
"""The magnitude of RandAugment that its makers call the strongest."""
STRONGEST = {"torchvision": 30.0, "big_vision": 100.0, "timm": 10.0}
"""The largest magnitude: where torchvision's bins end and timm stops; big_vision goes on past its full strength."""


class RandAugmentSettings(Settings):
    """RandAugment (Cubuk et al. 2019), by one of three programs that name operations, order and ranges alike, but do
    not have the same ones."""

    kind: Literal["torchvision", "big_vision", "timm"] = "torchvision"
    """torchvision: 14 operations, the identity among them. big_vision: the AugReg paper's, 16 operations, none of them
    the identity (big_vision pp/archive/autoaugment.py). timm: 15 operations, each skipped half of the time
    (timm/data/auto_augment.py, `rand-mM-nN`)."""
    layers: int = Field(default=2, ge=1, le=100)
    """Operations applied one after another."""
    magnitude: float = Field(default=10, ge=0, le=100)
    """Strength. torchvision: 0 to 30, the bins of its class by default. timm: 0 to 10. big_vision: 10 is full strength,
    and more goes on: 15, of the AugReg paper, turns by 45 degrees. big_vision and timm change much at 0 too."""
    magnitude_std: float = Field(default=0.0, ge=0, le=100)
    """timm only: spread of each operation's own magnitude about that one, cut at 0 and 10 (`mstd`)."""
    increasing: bool = False
    """timm only: the operations whose effect grows with the magnitude (`inc1`)."""

    @model_validator(mode="after")
    def _known_to_kind(self) -> "RandAugmentSettings":
        if self.magnitude > STRONGEST[self.kind]:
            most = f"full strength is {FULL_STRENGTH[self.kind]}, and more than {STRONGEST[self.kind]:g} has no meaning"
            raise ValueError(f"magnitude {self.magnitude:g} is beyond {self.kind}'s scale: {most}")
        if self.kind != "timm" and (self.magnitude_std or self.increasing):
            raise ValueError(f"magnitude_std and increasing belong to kind timm; {self.kind} has no such choice")
        return self


class MixupSettings(Settings):
    """Mixup (Zhang et al. 2018), its pairs and draws by name. CutMix has the same."""

    alpha: Concentration
    """Of the Beta distribution of the shares; 0 is off. An image keeps the larger share."""
    pairing: Literal["neighbours", "roll"] = "neighbours"
    """neighbours: images 2k and 2k + 1 of the sequence. roll: each image of a step with the one before it, the first
    with the last, as big_vision does on each device; here on the whole step, at any number of ranks."""
    per: Literal["pair", "batch"] = "pair"
    """What has a share of its own: each pair (each image, with roll), or each step, as in big_vision."""


class AugmentSettings(Settings):
    """Changes to an image between its file and the model. Every draw is keyed by (seed, position)."""

    crop: Literal["random_resized", "inception", "resmall", "area_small", "resize", "pad", "none"] = "random_resized"
    """random_resized: torchvision's RandomResizedCrop. inception: TensorFlow's sample_distorted_bounding_box, what the
    paper's authors ran. resmall: the shorter side to `resize_px`, then a random crop. area_small: the same by area, as
    big_vision's resize_small. resize: squashed to a square of `resize_px`, then a random crop. pad: squashed to
    `image_px`, a black border of `pad_px`, then a random crop, as torchvision's RandomCrop(padding). none: squashed to
    `image_px` where it has another size."""
    min_area: float | None = Field(default=None, gt=0, le=1)
    """Smallest share of the image that random_resized and inception may cut; left out, 0.08 and 0.05."""
    resize_px: Side | None = None
    """Side before the random crop of resmall, area_small and resize, pixels; left out, as `before_crop_px` says."""
    pad_px: Border | None = None
    """Border of the crop `pad`, pixels: an image is shifted by at most so many; left out, 4."""
    antialias: bool = True
    """Low-pass before shrinking, as Pillow does; the authors' TensorFlow pipeline did not."""
    flip: bool = True
    """Mirror left-right with probability 1/2."""
    randaugment: RandAugmentSettings | None = None
    """Random photometric and geometric operations after the crop (AugReg paper, section 3)."""
    mixup: Concentration | MixupSettings = 0.0
    """Alpha of the Beta distribution that blends images 2k and 2k+1 of the sequence; 0 is off. Or a section that says
    who is blended with whom: big_vision's is `{alpha: 0.2, pairing: roll, per: batch}`."""
    cutmix: Concentration = 0.0
    """Alpha of the Beta distribution for the share of a pasted box, within the same pairs; 0 is off. With mixup too,
    each pair draws one of the two."""

    @field_validator("mixup")
    @classmethod
    def _short(cls, mixup: float | MixupSettings) -> float | MixupSettings:
        """One way to say it: a section that names the defaults is its alpha."""
        if isinstance(mixup, float) or mixup != MixupSettings(alpha=mixup.alpha):
            return mixup
        return mixup.alpha

    @model_validator(mode="after")
    def _pads(self) -> "AugmentSettings":
        if reason := pads_in_vain(self.pad_px, self.crop):
            raise ValueError(reason)
        return self

    @property
    def mixing(self) -> MixupSettings:
        """Mixup with its pairs, the defaults put in."""
        return MixupSettings(alpha=self.mixup) if isinstance(self.mixup, float) else self.mixup

    @property
    def mixes(self) -> bool:
        """Whether Mixup or CutMix is on, so that labels become mixtures."""
        return self.mixing.alpha > 0 or self.cutmix > 0


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
