"""What travels to convert's tasks: plain data, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, Checkpoint, File, Score, Weights
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.convert.config import ConvertConfig, Format
from vitpipe.stages.convert.foreign.weights import ForeignWeights
from vitpipe.stages.convert.formats.common import format_of
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import Preparation

Source = Checkpoint | Weights | Score | ForeignWeights


@dataclass(frozen=True)
class WriteTask:
    """Write all formats that stream, in one pass over the source's tensors, or one that needs the whole model."""

    formats: tuple[Format, ...]
    config: ConvertConfig
    source: Source
    labels: tuple[str, ...]
    """Class names in the order of the head's rows; empty where the source has none."""
    ctx: TaskContext
    sigmoid: bool = False
    """Whether each class was learned by itself: a reader then takes the sigmoid of a logit, not the softmax of all."""
    preparation: Preparation | None = None
    """How an image gets to the model's size, where the source says it."""

    def __str__(self) -> str:
        return f"write {'+'.join(self.formats)}"


@dataclass(frozen=True)
class ProveTask:
    """Compare what was read of foreign weights with what their own library makes of them."""

    source: ForeignWeights
    ctx: TaskContext

    def __str__(self) -> str:
        return f"check {self.source.format} source"


@dataclass(frozen=True)
class CheckTask:
    """Prove one written format against the source."""

    format: Format
    config: ConvertConfig
    source: Source
    files: tuple[File, ...]
    """Those of the format."""
    ctx: TaskContext

    def __str__(self) -> str:
        return f"check {self.format}"


def settings_of(source: Artifact | ForeignWeights) -> ModelSettings:
    """The source's architecture. UsageError when it carries no weights."""
    if isinstance(source, ForeignWeights):
        return source.settings
    model: dict[str, Any] | None = getattr(source, "model", None)
    if not isinstance(source, Source) or model is None:
        raise UsageError(f"convert {source.uri}", f"it is a {source.kind} without weights", "give a Checkpoint")
    return ModelSettings.model_validate(model)


def refuse(formats: Sequence[Format], settings: ModelSettings) -> None:
    """UsageError that says what the wanted formats cannot hold, before anything is written."""
    wrong = [f"{name} cannot hold {limit}" for name in formats for limit in format_of(name).limits(settings)]
    if wrong:
        raise UsageError(f"convert to {', '.join(formats)}", "; ".join(wrong), "leave that format out")


def split(formats: Sequence[Format]) -> list[tuple[Format, ...]]:
    """The formats by the tasks that write them: all that stream in one, each graph in one of its own."""
    streamed = tuple(name for name in formats if format_of(name).links)
    graphs: list[tuple[Format, ...]] = [(name,) for name in formats if name not in streamed]
    return [streamed, *graphs] if streamed else graphs
