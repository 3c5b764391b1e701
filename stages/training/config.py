"""What a training run is made of, in a config: the objective and what is measured. Knows no stage and no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vitpipe.stages.bounds import Images, Penalty, Seed
from vitpipe.stages.preparation import EvalResize
from vitpipe.stages.settings import PositiveDuration, Settings

PatchTarget = Literal["mean_rgb_3bit", "rgb_4x4_3bit", "l2"]
CELLS = {"mean_rgb_3bit": 1, "rgb_4x4_3bit": 4}
"""Cells along the side of a patch whose mean colours masked patch prediction asks for."""
NUM_COLOURS = 512
"""3 bits a channel."""
BUCKET_ELEMENTS = 25_000_000
"""Gradients reduced, and weights gathered, at a time: 50 MB in bf16, past the size where a link's latency counts."""

WEIGHT = "weight"
"""Name of the weights, beside those of their moments, in a training state."""
MASKED_PARAMETERS = frozenset({"mask_token", "predictor.weight", "predictor.bias"})
"""Parameters that masked patch prediction adds to a plain ViT's; of no use once the encoder is trained."""


class ObjectiveSettings(Settings):
    """What the model is asked to predict, and how a wrong answer is counted."""

    kind: Literal["softmax", "sigmoid", "masked_patch"] = "softmax"
    """softmax cross-entropy, or sigmoid cross-entropy summed over the classes (big_vision's ImageNet-21k recipe); or
    masked_patch, which ignores labels: half of the patches are corrupted, and predicted from the others (B.1.2)."""
    target: PatchTarget | None = None
    """masked_patch only: what is predicted of a corrupted patch. mean_rgb_3bit, the default: its mean colour as one of
    512; rgb_4x4_3bit: that of each of its 4 x 4 parts; l2: all its pixels, by squared error."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target mass spread evenly over all classes."""
    head_bias: float | None = Field(default=None, ge=-1_000, le=1_000)
    """Initial bias of the head; by default 0 for softmax and -10 for sigmoid (big_vision)."""

    @property
    def patch_target(self) -> PatchTarget:
        """What masked_patch predicts, the default put in."""
        return self.target or "mean_rgb_3bit"

    @property
    def initial_head_bias(self) -> float:
        """Bias that the head begins with, the objective's default put in."""
        if self.head_bias is not None:
            return self.head_bias
        return -10.0 if self.kind == "sigmoid" else 0.0

    @model_validator(mode="after")
    def _fits(self) -> "ObjectiveSettings":
        if self.kind != "masked_patch" and self.target is not None:
            raise ValueError(f"target {self.target} belongs to masked_patch, the kind is {self.kind}")
        if self.kind == "masked_patch" and (self.label_smoothing or self.head_bias is not None):
            raise ValueError("masked_patch has no labels and no head: leave label_smoothing and head_bias out")
        return self

    def outputs_of_patch(self, patch_px: int) -> int:
        """Numbers that masked_patch predicts of a patch: a choice among 512 colours for each cell, or all pixels."""
        if self.patch_target == "l2":
            return 3 * patch_px**2
        return CELLS[self.patch_target] ** 2 * NUM_COLOURS


LayerDecay = Annotated[float, Field(gt=0, le=1)]
"""Each layer's share of the learning rate of the layer after it (BEiT; ELECTRA before it); 1 for one rate."""


class Ema(Settings):
    """A running average of the parameters over steps, from the initial ones on (Polyak and Juditsky 1992)."""

    decay: float = Field(gt=0, lt=1)
    """Share of the old average that a step keeps; 0.9999 for ImageNet in Table 2 (section B.1.1)."""


class FewshotSettings(Settings):
    """The authors' few-shot score of frozen features (section 4.1), as `evaluate` has it."""

    shots: tuple[Images, ...] = Field(default=(5, 10), min_length=1)
    """Training images of each class of a probe, of a smaller class all; the paper reports 5 mostly, big_vision shows
    ImageNet's 10."""
    strict_shots: bool = False
    """Refuse a probe of which a class has fewer training images than the most of `shots`, before training begins."""
    l2: Penalty = 1024.0
    """The ridge penalty; 2^10 in the authors' code."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """Draws of these images; the score is the mean over them."""
    eval_resize: EvalResize = "resize_crop"
    """How an image reaches the model's size, as in `evaluate`: squared at 256 px, then the central 224, for one."""
    antialias: bool | None = None
    """Low-pass before shrinking; left out, as the training images."""


class EvaluateSettings(Settings):
    """What is measured while training goes on; it changes no weight."""

    every: PositiveDuration
    """Between two measurements; the last step has one too."""
    fewshot: FewshotSettings = FewshotSettings()
    """On each of the node's `probes`."""
    eval_resize: EvalResize = "resmall_crop"
    """How a held-out image reaches the model's size: its shorter side at 256 px, then the central 224; by area with
    area_small, as in big_vision."""
    antialias: bool | None = None
    """Low-pass before shrinking; left out, as the training images."""
