"""What a fine-tuning takes: the protocol of the paper's section 4.1 and B.1.1, every choice a field. No torch."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from vitpipe.infra.errors import UsageError
from vitpipe.stages.bounds import AnySeed, BatchImages, Border, Cores, Few, Images, Rate, RateOrNone, Side
from vitpipe.stages.finetune.sections import TuningAugment, TuningOptimizer
from vitpipe.stages.images.config import AugmentSettings, pads_in_vain, too_small
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import EvalResize
from vitpipe.stages.settings import Duration, PositiveDuration, Settings, TaskResources, in_brief, micro_batch_of
from vitpipe.stages.training.config import Ema, LayerDecay
from vitpipe.stages.training.optim.schedule import ScheduleSettings, in_steps


class FinetuneConfig(Settings):
    """Tune on a dev split held out of train, retrain on all of train, test once per seed."""

    batch_images: BatchImages
    """Images per step; 512 in the paper (section 4.1)."""
    total: PositiveDuration
    """Length of one training, e.g. `500 steps` (Table 4); an epoch is the part of train that a trial sees."""
    peak_lr: Rate | tuple[Rate, ...]
    """Learning rate after warm-up. Several are a sweep: the dev split chooses, ties go to the lower dev loss."""
    split: str = Field(default="test", min_length=1, max_length=255)
    """The images that are scored once a seed, after the choice: the split `test` of the data, or another, such as `val`
    where no test is. A sweep cannot read them: its dev split is a part of `train`."""
    image_px: Side | None = None
    """Side of the input image, pixels; the weights' own when left out. Another size resizes the position embedding."""
    warmup: Duration = Duration(0, "steps")
    """Linear warm-up, within `total`; the authors' code uses 500 steps, 100 for the short schedules."""
    end_lr: RateOrNone = 0.0
    """Learning rate that the cosine ends at; 1e-6 for MAE and BEiT."""
    optimizer: TuningOptimizer = TuningOptimizer()
    """The update rule; the paper's SGD when left out."""
    layer_decay: LayerDecay | None = None
    """Each layer's share of the learning rate of the layer after it; head and final norm have the whole (BEiT, MAE:
    0.65 for B/16, 0.75 for L/16). One rate when left out, as in the paper."""
    seeds: tuple[AnySeed, ...] = (0, 1, 2)
    """One test result each. A seed decides sample order, crops, dropout, the random start without weights, and the
    subset of `train_per_class`."""
    sweep_seeds: Few = 1
    """Seeds that the sweep runs per rate, the first of `seeds`; more of them steady the choice on a small dev split."""
    dev: Annotated[float, Field(gt=0, le=1_000_000_000_000)] | Images = 0.1
    """Part of train held out while sweeping: a fraction below 1, or a number of images; classes keep their shares."""
    stop_hopeless: float | None = Field(default=None, gt=0, lt=1)
    """Only when asked: end a trial of the sweep after this share of its steps, e.g. 0.25, if until then it learned
    nothing: its mean loss over the last tenth of them not a hundredth below that of guessing. The rate then failed."""
    train_per_class: Images | None = None
    """Keep only so many training images of each class, of a smaller one all; the score counts these
    (`short_classes`). Drawn by seed and data alone, so two nodes with equal seeds compare on the same images."""
    strict_train_per_class: bool = False
    """Fail instead, before any trial, where a class has fewer training images than `train_per_class`."""
    clip_norm: float | None = Field(default=1.0, gt=0, le=1e12)
    """Global gradient norm above which gradients are scaled down (section B.1.1)."""
    crop: Literal["random_resized", "inception", "resmall", "area_small", "resize", "pad", "none"] = "inception"
    """Training crop: random area and aspect as torchvision or as TensorFlow samples it; a random square after resizing
    the shorter side (resmall; by area: area_small) or both sides (resize) to `crop_px`; shifted by at most `pad_px` in
    a black border (pad); or the whole image, squashed."""
    crop_px: Side | None = None
    """Side that resmall, area_small and resize bring an image to before cropping; left out, `image_px` x 8/7 (448 for
    384)."""
    pad_px: Border | None = None
    """Border of the crop `pad`, pixels; 4 when left out."""
    antialias: bool = True
    """Low-pass before shrinking, as torchvision and PIL do; the authors' TensorFlow code did not."""
    flip: bool = True
    """Mirror half of the training images; not for digits, text or directions."""
    augment: TuningAugment = TuningAugment()
    """RandAugment, Mixup and CutMix, which the paper's protocol has not."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target mass spread evenly over all classes, while training."""
    eval_resize: EvalResize = "squash"
    """How dev and test images reach `image_px`: squashed; or resized by 8/7, as a square or by the shorter side, and
    cropped at the centre; area_small: the shorter side by area (big_vision's resize_small)."""
    position_resize: Literal["vit_paper", "timm", "huggingface", "torchvision"] = "vit_paper"
    """Whose interpolation brings the position embedding to a new grid; vit_paper is the authors' own."""
    ema: Ema | None = None
    """Average the parameters over steps: the average is what is evaluated, and kept as the weights."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: matrix products in bfloat16 with fp32 parameters (autocast); fp32: everything in single precision."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Replaces the model's rate; the authors' fine-tuning configs use 0.1 for L/16 and H/14, else 0."""
    stochastic_depth: float | None = Field(default=None, ge=0, lt=1)
    """Drop rate of the last block's branches, growing linearly from 0 at the first; the weights' own when left out."""
    head_init: Literal["zero", "keep"] = "zero"
    """zero: a new head that begins at zero (section D.3). keep: the weights' own head, hidden layer and all, whose
    classes must be the data's, as DeiT-III goes on from 224 to 384 pixels."""
    model: ModelSettings | None = None
    """The architecture when there are no weights to start from; must stay empty when there are."""

    @property
    def rates(self) -> tuple[float, ...]:
        """The swept learning rates, one or several."""
        return self.peak_lr if isinstance(self.peak_lr, tuple) else (self.peak_lr,)

    @property
    def image_changes(self) -> AugmentSettings:
        """The training crop and what follows it, in the words of the image reader."""
        varied = {name: getattr(self.augment, name) for name in type(self.augment).model_fields}
        crop = {"crop": self.crop, "resize_px": self.crop_px, "pad_px": self.pad_px, "antialias": self.antialias}
        return AugmentSettings.model_validate({**crop, "flip": self.flip, **varied})

    def architecture(self, pretrained: ModelSettings | None, classes: int) -> ModelSettings:
        """The model that is trained: the pretrained one or `model`, both head layers dropped for one (section D.3),
        unless the head is kept.

        UsageError when there is neither, or when it cannot have this `image_px`.
        """
        model = pretrained or self.model
        if model is None:
            raise UsageError("fine-tune a model", "neither weights nor config.model are given", "give one of them")
        changed: dict[str, object] = {"classes": classes, "representation": "none", "dropout": self.dropout}
        if self.head_init == "keep":
            changed["representation"] = model.representation
        if self.stochastic_depth is not None:
            changed["stochastic_depth"] = self.stochastic_depth
        size = {"image_px": self.image_px or model.image_px}
        if reason := too_small(self.crop_px, size["image_px"]):
            raise UsageError(f"fine-tune at {size['image_px']} px", reason, "raise crop_px, or leave it out")
        try:
            return ModelSettings.model_validate({**model.model_dump(), **changed, **size})
        except ValidationError as error:
            do = "choose an image_px and a dropout that this model can have"
            raise UsageError(f"fine-tune at {size['image_px']} px", in_brief(error), do) from error

    def cosine(self, total_steps: int, num_train: int) -> ScheduleSettings:
        """Warm-up and cosine decay to `end_lr` of one trial, in steps. UsageError for no step, or a longer warm-up."""
        if total_steps < 1:
            found = f"{num_train} training images make less than one step of batch_images {self.batch_images}"
            raise UsageError(f"fine-tune for {self.total}", found, "lower batch_images, or lengthen total")
        try:
            schedule = ScheduleSettings(kind="cosine", warmup=self.warmup, end_lr=self.end_lr)
            return in_steps(schedule, total_steps, self.batch_images, num_train)
        except ValueError as error:
            raise UsageError(f"fine-tune for {self.total}", str(error), "shorten the warm-up") from error

    @field_validator("seeds", "peak_lr")
    @classmethod
    def _differ(cls, values: float | tuple[float, ...], info: ValidationInfo) -> float | tuple[float, ...]:
        if values == ():
            raise ValueError(f"{info.field_name} is empty; give at least one")
        listed = values if isinstance(values, tuple) else ()
        if twice := sorted({value for value in listed if listed.count(value) > 1}, key=str):
            raise ValueError(f"{info.field_name} lists {', '.join(map(str, twice))} more than once")
        return values

    @field_validator("dev")
    @classmethod
    def _part_or_number(cls, dev: float) -> float:
        if dev > 1 and dev != int(dev):
            raise ValueError(f"{dev} is neither a fraction below 1 nor a number of images")
        return dev

    @model_validator(mode="after")
    def _fits(self) -> "FinetuneConfig":
        if self.split == "train":
            raise ValueError("split train is what is trained on: score another, such as val")
        if self.strict_train_per_class and self.train_per_class is None:
            raise ValueError("strict_train_per_class asks that no class is short of train_per_class: state that too")
        if self.sweep_seeds > len(self.seeds):
            raise ValueError(f"sweep_seeds {self.sweep_seeds} is more than the {len(self.seeds)} seeds")
        if self.crop_px is not None and self.crop not in ("resmall", "area_small", "resize"):
            meaning = f"crop_px {self.crop_px} has no meaning for crop {self.crop!r}"
            raise ValueError(f"{meaning}; it belongs to resmall, area_small and resize")
        if self.end_lr > min(self.rates):
            raise ValueError(f"end_lr {self.end_lr:g} is above peak_lr {min(self.rates):g}: the rate falls to the end")
        if reason := pads_in_vain(self.pad_px, self.crop):
            raise ValueError(reason)
        if reason := too_small(self.crop_px, self.image_px):
            raise ValueError(f"crop_px: {reason}")
        return self


class FinetuneResources(TaskResources):
    """Where a trial runs; a trial is one task."""

    micro_batch: BatchImages | None = None
    """Images per forward and backward pass; must divide `batch_images`. The largest divisor up to 64 when left out."""
    threads: Cores = 2
    """Threads that decode images beside the training of a trial."""


def check(config: FinetuneConfig, resources: FinetuneResources) -> list[str]:
    """What config and resources say of each other that cannot work, as sentences; asked by `validate`."""
    size = micro_batch_of(config.batch_images, resources.micro_batch)
    whole, rest = divmod(config.batch_images, size)
    if not rest:
        return []
    return [f"batch_images {config.batch_images} is not a multiple of micro_batch {size}: {whole} x {size} + {rest}"]


def check_inputs(config: FinetuneConfig, given: Collection[str]) -> list[str]:
    """What the config misses or has too much of, given the names of the node's inputs; asked by `validate`."""
    if "weights" in given and config.model is not None:
        return ["config.model is for training from scratch, but weights are given: remove one of them"]
    if "weights" not in given and config.head_init == "keep":
        return ["head_init keep goes on with the head of weights, of which there are none: give them, or leave it out"]
    if "weights" not in given and config.model is None:
        example = "{variant: B/16, image_px: 224}"
        return [f"without weights the node trains from scratch and needs config.model, e.g. {example}"]
    return []
