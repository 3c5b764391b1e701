"""What convert takes: the file formats to write, and what to write into them. No torch."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vitpipe.infra.storage.hub_names import hub_place, is_hub
from vitpipe.stages.bounds import Epsilon, Side, Width
from vitpipe.stages.model_settings import Rope
from vitpipe.stages.settings import Place, Settings, TaskResources

ForeignFormat = Literal["native", "timm", "huggingface", "torchvision", "google", "google_big_vision"]
"""Formats that are written and taken in."""
Format = Literal[ForeignFormat, "onnx"]
"""All that are written: each is a file of this name in `stages/convert/formats`, which says all of it."""
Dtype = Literal["fp32", "bf16", "fp16"]
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".msgpack", ".h5")
"""Endings of files that are not opened."""
WITHOUT_PICKLES = (
    "where you trust it, read it with torch.load(FILE, weights_only=True), write the state dict with "
    "safetensors.torch.save_file, and name that file"
)


Mean = Annotated[float, Field(ge=-1_000, le=1_000)]
Spread = Annotated[float, Field(ge=1e-6, le=1_000)]
"""Of pixels in [0, 1]: of another scale, such as 0 to 255, too."""


class ForeignSource(Settings):
    """Weights that no run of ours made: what they are is read from the tensors' names and shapes, and the files beside
    them. What neither says, these fields do."""

    path: Annotated[str, Place()]
    """A safetensors or npz file, or a folder with one or with shards; local, `s3://`, or a model of the Hugging Face
    Hub, `hf://owner/name[@revision][/path]`. A local one is not part of the recipe: a file may move; its SHA-256 is in
    the record."""
    format: ForeignFormat | None = None
    """What it has to be; recognised when left out."""
    gelu: Literal["tanh", "erf", "quick"] | None = None
    """Approximation of the GELU it was trained with; its config's when left out, else tanh for Google's, erf for
    others."""
    norm_eps: Epsilon | None = None
    """LayerNorm epsilon; its config's when left out, else 1e-12 for Hugging Face, 1e-6 for others."""
    heads: Width | None = None
    """Attention heads, for explicit sizes of a file that does not say them."""
    image_px: Side | None = None
    """Side of its images, pixels, where neither a position table nor a config shows it, as of a ResNet."""
    mean: tuple[Mean, Mean, Mean] | None = None
    """What its images are reduced by, of pixels in [0, 1]; its config's when left out, else ImageNet's for torchvision,
    0.5 for others. Folded into the first layer, as native weights take images in [-1, 1]."""
    std: tuple[Spread, Spread, Spread] | None = None
    """What they are then divided by; likewise."""
    position: Literal["learned1d", "sincos2d", "none"] | None = None
    """Its positions, where it has no table of them and no config says that there are none: computed from sines as
    big_vision does, or none at all."""
    rope: Rope | None = None
    """Its rotary positions, where no config beside it says them: no tensor shows any."""
    in_chans_ok: bool = False
    """Whether a model of grey images (`in_chans: 1`) may be taken: its first layer then sees red, green and blue as
    0.299, 0.587 and 0.114 of grey, so that grey images give what they gave."""
    prefix: Annotated[str, Field(max_length=200)] | None = None
    """What stands before its tensors' names, where the file holds more than one model, such as `ema.` beside `model.`;
    empty for the one without. Tensors outside of it are left out. A wrapper around all (`module.`, `model.`,
    `_orig_mod.`, `backbone.`, `encoder.`) is recognised."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 that the publisher gives for a single file; another one found is an integrity error."""

    @field_validator("path")
    @classmethod
    def _openable(cls, path: str) -> str:
        if path.lower().endswith(PICKLES):
            raise ValueError(f"{path}: a pickle can run code, it is not opened; {WITHOUT_PICKLES}")
        if is_hub(path):
            return hub_place(path).uri
        if path.startswith("file://") and not path.startswith("file:///"):
            raise ValueError(f"{path}: file:// takes an absolute path; write a relative one without it")
        return path

    @model_validator(mode="after")
    def _both_or_none(self) -> "ForeignSource":
        if (self.mean is None) != (self.std is None):
            raise ValueError("give mean and std, or neither")
        return self


class ConvertConfig(Settings):
    """Which files to make of a checkpoint."""

    source: ForeignSource | None = None
    """Foreign weights to bring in, instead of an input."""
    formats: tuple[Format, ...] = Field(default=("native",), min_length=1)
    """A folder is written for each: `native` is ours, `timm` loads by `timm.create_model('local-dir:DIR')`,
    `huggingface` by `ViTForImageClassification.from_pretrained(DIR)`, `torchvision` into its function's model,
    `google` and `google_big_vision` are npz files of their codes' names, `onnx` runs in onnxruntime."""
    license: str | None = Field(default=None, min_length=1)
    """Licence of the weights, an SPDX identifier such as `apache-2.0`, written where each format's readers look."""
    dtype: Dtype = "fp32"
    """Type of the written numbers; training keeps its master weights in fp32."""
    use: Literal["params", "ema"] = "params"
    """Which tensors of the checkpoint: the parameters at its step, or their running average over steps."""

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        twice = sorted({name for name in formats if formats.count(name) > 1})
        if twice:
            raise ValueError(f"formats names {', '.join(twice)} more than once")
        return formats


class ConvertResources(TaskResources):
    """What the converting task gets; it streams, so little is enough."""

    gpus_per_task: float | None = Field(default=0, ge=0, le=1_024)
    """GPUs of the task; none is needed."""
    trust_source: bool = False
    """Do not compare foreign weights with what was converted, at every plan and run."""


def check_inputs(config: ConvertConfig, given: Collection[str]) -> list[str]:
    """What is wrong with the names of the given inputs, one sentence each."""
    if config.use == "ema" and "checkpoint" not in given:
        return ["use: ema takes the average that a checkpoint keeps of its weights: give a `checkpoint`, or use params"]
    sources = [f"`{name}`" for name in ("checkpoint", "weights") if name in given]
    sources += ["config.source"] if config.source else []
    if len(sources) > 1:
        return [f"convert needs one source, {' and '.join(sources)} are given: remove all but one"]
    return [] if sources else ["convert needs a source: `checkpoint`, `weights`, or config.source for foreign weights"]
