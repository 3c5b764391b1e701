"""What a training run is made of, in a config: the objective and what is measured. Knows no stage and no torch."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vitpipe.stages.bounds import Images, Layers, Penalty, Seed, Width
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import EvalResize
from vitpipe.stages.settings import PositiveDuration, Settings
from vitpipe.stages.variants import Sizes

PatchTarget = Literal["mean_rgb_3bit", "rgb_4x4_3bit", "l2"]
CELLS = {"mean_rgb_3bit": 1, "rgb_4x4_3bit": 4}
"""Cells along the side of a patch whose mean colours masked patch prediction asks for."""
NUM_COLOURS = 512
"""3 bits a channel."""
BUCKET_ELEMENTS = 25_000_000
"""Gradients reduced, and weights gathered, at a time: 50 MB in bf16, past the size where a link's latency counts."""
UPDATED_AT_A_TIME = 2**24
"""Numbers of a weight that a rule's update makes aside, before it is known whether they are wanted."""

WEIGHT = "weight"
"""Name of the weights, beside those of their moments, in a training state."""
OF_PRETRAINING_ALONE = ("mask_token", "predictor.", "decoder_")
"""What names of parameters begin with that an objective adds to a model's; of no use once the encoder is trained."""


class DecoderSettings(Settings):
    """What mae rebuilds patches with: a plain ViT's blocks, thrown away once the encoder is trained."""

    layers: Layers = 8
    """Blocks; 8 for fine-tuning, and a single one costs little accuracy (He et al. 2022, Table 1a)."""
    width: Width = 512
    """Hidden size, a multiple of 4 for its fixed positions; the MLP's is four times as large (Table 1b)."""
    heads: Width = 16
    """Attention heads; must divide the width (`models_mae.py`)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "DecoderSettings":
        if rest := self.width % self.heads:
            division = f"{self.width} = {self.width // self.heads} x {self.heads} + {rest}"
            raise ValueError(f"decoder.width {self.width} is not a multiple of decoder.heads {self.heads}: {division}")
        if self.width % 4:
            raise ValueError(f"decoder.width {self.width} is not a multiple of 4, as its fixed positions need")
        return self


class ObjectiveSettings(Settings):
    """What the model is asked to predict, and how a wrong answer is counted."""

    kind: Literal["softmax", "sigmoid", "masked_patch", "mae"] = "softmax"
    """softmax cross-entropy, or sigmoid cross-entropy summed over the classes (big_vision's ImageNet-21k recipe). Two
    ignore labels. masked_patch: half of the patches are corrupted, and predicted from the others (B.1.2). mae: the
    encoder sees a quarter of the patches, and a small decoder rebuilds the pixels of the others (He et al. 2022)."""
    target: PatchTarget | None = None
    """masked_patch only: what is predicted of a corrupted patch. mean_rgb_3bit, the default: its mean colour as one of
    512; rgb_4x4_3bit: that of each of its 4 x 4 parts; l2: all its pixels, by squared error."""
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """mae only: share of the patches that the encoder does not see; of N it sees int(N (1 - mask_ratio))."""
    decoder: DecoderSettings = DecoderSettings()
    """mae only: what rebuilds the pixels."""
    norm_pixels: bool = True
    """mae only: rebuild each patch as normalised by its own mean and deviation, as the authors' best models do."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target mass spread evenly over all classes."""
    head_bias: float | None = Field(default=None, ge=-1_000, le=1_000)
    """Initial bias of the head; by default 0 for softmax and -10 for sigmoid (big_vision)."""

    @property
    def labelled(self) -> bool:
        """Whether the objective looks at labels."""
        return self.kind in ("softmax", "sigmoid")

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
        for name in ("mask_ratio", "decoder", "norm_pixels"):
            if self.kind != "mae" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} belongs to mae, the kind is {self.kind}")
        if not self.labelled and (self.label_smoothing or self.head_bias is not None):
            raise ValueError(f"{self.kind} has no labels and no head: leave label_smoothing and head_bias out")
        return self

    def decoder_model(self, model: ModelSettings) -> ModelSettings:
        """What mae's decoder is beside an encoder: a ViT on as many patches, with timm's default MLP."""
        width = self.decoder.width
        sizes = Sizes(
            layers=self.decoder.layers,
            width=width,
            mlp=4 * width,
            heads=self.decoder.heads,
            patch_px=model.sizes.patch_px,
        )
        kept = {name: getattr(model, name) for name in ("image_px", "pool", "gelu", "norm_eps")}
        return ModelSettings(variant=sizes, classes=0, position="none", **kept)

    def visible(self, num_patches: int) -> int:
        """Patches that mae's encoder sees, as `models_mae.py` counts them."""
        return int(num_patches * (1 - self.mask_ratio))

    def outputs_of_patch(self, patch_px: int) -> int:
        """Numbers predicted of a patch: a choice among 512 colours for each cell, or all pixels."""
        if self.kind == "mae" or self.patch_target == "l2":
            return 3 * patch_px**2
        return CELLS[self.patch_target] ** 2 * NUM_COLOURS


LayerDecay = Annotated[float, Field(gt=0, le=1), AfterValidator(lambda share: None if share == 1 else share)]
"""Each layer's share of the learning rate of the layer after it (BEiT; ELECTRA before it); 1 is one rate, and is kept
as None, so that there is one way to say it."""


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
