"""What an evaluation of frozen weights takes. No torch."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vitpipe.stages.bounds import BatchImages, Images, Penalty, Seed, Side
from vitpipe.stages.preparation import EvalResize
from vitpipe.stages.settings import Place, Settings, TaskResources

PART_IMAGES = 8192
"""Images of one task, so that a large split is spread over the cluster and a killed driver keeps what was done."""


class EvaluateConfig(Settings):
    """A score of weights as they are: nothing in them is trained."""

    method: Literal["fewshot", "linear", "knn", "classify", "real"]
    """fewshot: ridge regression on frozen features (the paper's few-shot metric, section 4.1); linear: logistic
    regression on them; knn: a vote of the nearest training images; classify: the weights' own head on the scored split,
    class by class name; real: the same where an image may have several right names, or none and is left out
    (ImageNet-ReaL)."""
    split: str = Field(default="test", min_length=1, max_length=255)
    """The images that are scored: the split `test` of the data, or another, such as `val` where no test is. Probes are
    fitted on `train`."""
    features: Literal["weights", "untrained", "raw_pixels"] = "weights"
    """fewshot, linear and knn: the model's pre-logits; those of the same architecture at random, by seed; or the
    pixels themselves. The last two are the baselines that a reader asks for."""
    shots: tuple[Images, ...] | None = None
    """Training images per class, drawn by seed. The first is the score's value, the others stand beside it. Left out:
    5, 1, 10 and 25 for fewshot, all training images for linear and knn. Of a class with fewer all are taken, as
    big_vision does, and the score counts such classes (`short_classes`)."""
    strict_shots: bool = False
    """Fail instead, before anything is scored, where a class has fewer training images than the most of `shots`."""
    l2: Penalty = 1024.0
    """fewshot: the ridge penalty; 2^10 in the authors' code."""
    l2_shared: tuple[Penalty, ...] = ()
    """fewshot: penalties to compare on training images that no support has. The report then shows, beside `l2`, the
    one that is best over all data sets together, as the paper's few-shot scores had it, e.g. [0.001, 1, 1024]."""
    l2_sweep: tuple[Penalty, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    """linear: penalties on the weights beside the mean cross-entropy. A fifth of the training images, held out by
    seed, chooses; the chosen one is fitted on all of them."""
    neighbours: Images = 20
    """knn: how many vote, weighted by exp(cosine / temperature) (DINO's eval_knn.py)."""
    temperature: float = Field(default=0.07, ge=0.0125, le=1_000)
    """knn: of that weight; below 1/80 the exponential leaves the range of fp32."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """One draw of training images, or of held out ones, each. knn on all images needs none and scores once."""
    image_px: Side | None = None
    """Side of the input image, pixels; the weights' own when left out."""
    eval_resize: EvalResize | Literal["weights"] | None = None
    """How an image reaches `image_px`: squashed; or resized by 8/7, as a square (resize_crop, the authors' few-shot:
    256, then 224) or by the shorter side (resmall_crop, also called resize_small; by area: area_small, as their
    pretraining evaluation has it), and cropped at the centre. `weights`: as the makers of imported weights say, their
    sides and their filter (`preparation.json`). Left out: classify and real test a fine-tuning's weights as that did;
    all else is resize_crop."""
    antialias: bool | None = None
    """Low-pass before shrinking, as Pillow does. Left out: as a fine-tuning's weights were tested, where its whole way
    is taken; else no, as in the authors' code. area_small averages by itself."""
    position_resize: Literal["vit_paper", "timm", "huggingface", "torchvision"] = "vit_paper"
    """Whose interpolation brings the position embedding to another `image_px`."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """Arithmetic of the model; the ridge is always solved in double precision."""
    class_map: Annotated[dict[str, str] | str | None, Place(content=True)] = None
    """classify and real, where the data call their classes otherwise than the weights: each class of the data by the
    weights' name for it, or by its number where the weights name none. A mapping, or a YAML file that holds one."""

    @property
    def probes(self) -> bool:
        """Whether something is fitted on frozen features; else the weights' own head answers."""
        return self.method in ("fewshot", "linear", "knn")

    @property
    def drawn(self) -> tuple[int, ...] | None:
        """Training images per class, or None for all of them."""
        return (5, 1, 10, 25) if self.shots is None and self.method == "fewshot" else self.shots

    @property
    def scored_seeds(self) -> tuple[int, ...]:
        """The seeds that make a difference."""
        fixed = self.method == "knn" and self.drawn is None and self.features != "untrained"
        return self.seeds[:1] if fixed or not self.probes else self.seeds

    @property
    def called(self) -> Mapping[str, str]:
        """The weights' name of each class that `class_map` names; empty without one."""
        return self.class_map if isinstance(self.class_map, dict) else {}

    @field_validator("class_map", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        """Numbers are names here; each side stands once."""
        if not isinstance(given, Mapping):
            return given
        if not given:
            raise ValueError("it maps no class: leave it out where the names are the same")
        if other := [one for pair in given.items() for one in pair if type(one) not in (int, str) or one == ""]:
            raise ValueError(f"it maps names to names, not {other[0]!r}: put it in quotes if it is one")
        names = {str(name): str(theirs) for name, theirs in given.items()}
        if twice := next((name for name, count in Counter(names.values()).items() if count > 1), None):
            both = [name for name, theirs in names.items() if theirs == twice]
            raise ValueError(f"{twice!r} is given twice, for {' and '.join(map(repr, both))}: one class each")
        return names

    @field_validator("seeds", "shots", "l2_sweep", "l2_shared")
    @classmethod
    def _differ(cls, values: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        empty = values == () and info.field_name != "l2_shared"
        if values is not None and (empty or len(set(values)) < len(values)):
            raise ValueError(f"give at least one number and none twice: {list(values)}")
        return values

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateConfig":
        if not self.probes and self.features != "weights":
            raise ValueError(
                f"features {self.features!r} belong to methods fewshot, linear and knn; {self.method} needs the "
                "weights' own head"
            )
        if self.probes and self.split == "train":
            raise ValueError(f"method {self.method} is fitted on the split train: score another, such as val")
        if self.antialias is not None and self.eval_resize in ("area_small", "weights"):
            raise ValueError(f"eval_resize {self.eval_resize} has a filter of its own: leave antialias out")
        if self.l2_shared and self.method != "fewshot":
            raise ValueError(f"l2_shared belongs to method fewshot, not {self.method}")
        if isinstance(self.class_map, str):
            raise ValueError("class_map is a file's name, which a YAML of nodes reads: give the mapping itself")
        if self.probes and self.class_map is not None:
            raise ValueError(f"class_map belongs to methods classify and real; {self.method} fits a head of its own")
        if not self.probes and self.shots is not None:
            raise ValueError(f"method {self.method} trains on nothing; it takes no shots")
        if self.strict_shots and self.drawn is None:
            raise ValueError(f"strict_shots asks that no class is short of `shots`, and {self.method} draws none here")
        return self


class EvaluateResources(TaskResources):
    """Where features are extracted; one task per split and set of weights."""

    batch_images: BatchImages = 64
    """Images per forward pass."""


def check_inputs(config: EvaluateConfig, given: Collection[str]) -> list[str]:
    """What the config misses, given the names of the node's inputs; asked by `validate`."""
    if "weights" in given:
        return []
    if config.eval_resize == "weights":
        return ["eval_resize weights needs weights"]
    if config.features != "raw_pixels":
        return [f"method {config.method} with features {config.features} needs weights"]
    return [] if config.image_px else ["raw_pixels without weights needs image_px"]
