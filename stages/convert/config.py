"""What convert takes: the file formats to write, and what to write into them. No torch."""

from typing import Literal

from pydantic import Field, field_validator

from stages.settings import Settings, TaskResources

Format = Literal["native", "timm"]


class ConvertConfig(Settings):
    """Which files to make of a checkpoint."""

    formats: tuple[Format, ...] = Field(default=("native",), min_length=1)
    """A folder is written for each: `native` is ours, `timm` loads by `timm.create_model('local-dir:DIR')`."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of the written numbers; training keeps its master weights in fp32."""
    use: Literal["params"] = "params"
    """Which tensors of the checkpoint: the parameters at its step."""

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        twice = sorted({name for name in formats if formats.count(name) > 1})
        if twice:
            raise ValueError(f"formats names {', '.join(twice)} more than once")
        return formats


class ConvertResources(TaskResources):
    """What the converting task gets; it streams, so little is enough."""

    gpus_per_task: float | None = 0
    """GPUs of the task; none is needed."""


def check_inputs(config: ConvertConfig, given: frozenset[str]) -> list[str]:
    """What is wrong with the names of the given inputs, one sentence each."""
    if given & {"checkpoint", "weights"} == {"checkpoint", "weights"}:
        return ["convert needs one source: `checkpoint` or `weights`, both are given"]
    return [] if given else ["convert needs a source: `checkpoint`, or `weights`"]
