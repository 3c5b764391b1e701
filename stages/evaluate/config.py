"""What an evaluation of frozen weights takes. No torch."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from stages.settings import Settings, TaskResources


class EvaluateConfig(Settings):
    """A score of weights as they are: nothing in them is trained."""

    method: Literal["fewshot", "classify"]
    """fewshot: ridge regression on frozen features (the paper's few-shot metric, section 4.1); classify: the weights'
    own head on the test split, class by class name."""
    features: Literal["weights", "untrained", "raw_pixels"] = "weights"
    """fewshot only: the model's pre-logits; those of the same architecture at random, by seed; or the pixels
    themselves. The last two are the baselines that a reader asks for."""
    shots: tuple[PositiveInt, ...] = (5, 1, 10, 25)
    """fewshot: training images per class. The first is the score's value, the others stand beside it."""
    l2: PositiveFloat = 1024.0
    """fewshot: the ridge penalty; 2^10 in the authors' code."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2))
    """fewshot: one draw of training images each."""
    image_px: PositiveInt | None = None
    """Side of the input image, pixels; the weights' own when left out."""
    eval_resize: Literal["squash", "resize_crop", "resmall_crop"] = "resize_crop"
    """How an image reaches `image_px`: squashed; or resized by 8/7, as a square (the authors' few-shot: 256, then
    224) or by the shorter side (their pretraining evaluation), and cropped at the centre."""
    position_resize: Literal["vit_paper", "timm", "huggingface", "torchvision"] = "vit_paper"
    """Whose interpolation brings the position embedding to another `image_px`."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """Arithmetic of the model; the ridge is always solved in double precision."""

    @field_validator("seeds", "shots")
    @classmethod
    def _differ(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"give at least one number and none twice: {list(values)}")
        return values

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateConfig":
        if self.method == "classify" and self.features != "weights":
            raise ValueError(
                f"features {self.features!r} belong to method fewshot; classify needs the weights' own head"
            )
        return self


class EvaluateResources(TaskResources):
    """Where features are extracted; one task per split and set of weights."""

    batch_images: PositiveInt = 64
    """Images per forward pass."""


def check_inputs(config: EvaluateConfig, given: frozenset[str]) -> list[str]:
    """What the config misses, given the names of the node's inputs; asked by `validate`."""
    if "weights" in given:
        return []
    if config.features != "raw_pixels":
        return [f"method {config.method} with features {config.features} needs weights"]
    return [] if config.image_px else ["raw_pixels without weights needs image_px"]
