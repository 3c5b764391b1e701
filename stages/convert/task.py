"""What travels to convert's tasks: plain data, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, Checkpoint, File, Score, Weights
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.convert.config import ConvertConfig, ForeignSource, Format
from vitpipe.stages.convert.foreign.weights import Foreign
from vitpipe.stages.convert.formats.common import problems
from vitpipe.stages.vit.config import ModelSettings

Source = Checkpoint | Weights | Score | Foreign


@dataclass(frozen=True)
class WriteTask:
    """Write all formats in one pass over the source's tensors."""

    config: ConvertConfig
    source: Source
    labels: tuple[str, ...]
    """Class names in the order of the head's rows; empty where the source has none."""
    ctx: TaskContext
    sigmoid: bool = False
    """Whether each class was learned by itself: a reader then takes the sigmoid of a logit, not the softmax of all."""
    graph: bool = False
    """Build the ONNX graph, which needs the whole model at once, instead of streaming the others."""

    def __str__(self) -> str:
        return f"write {'+'.join(name for name in self.config.formats if (name == 'onnx') == self.graph)}"


@dataclass(frozen=True)
class LookTask:
    """Find out what foreign weights are, where they can be read."""

    source: ForeignSource
    ctx: TaskContext

    def __str__(self) -> str:
        return f"look at {self.source.path}"


@dataclass(frozen=True)
class ProveTask:
    """Compare what was read of foreign weights with what their own library makes of them."""

    source: Foreign
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


def settings_of(source: Artifact | Foreign) -> ModelSettings:
    """The source's architecture. UsageError when it carries no weights."""
    if isinstance(source, Foreign):
        return source.settings
    model: dict[str, Any] | None = getattr(source, "model", None)
    if not isinstance(source, Source) or model is None:
        raise UsageError(f"convert {source.uri}", f"it is a {source.kind} without weights", "give a Checkpoint")
    return ModelSettings.model_validate(model)


def refuse(formats: Sequence[Format], settings: ModelSettings) -> None:
    """UsageError that says what the wanted formats cannot hold, before anything is written."""
    wrong = [f"{name} cannot hold {problem}" for name in formats for problem in problems(name, settings)]
    if wrong:
        raise UsageError(f"convert to {', '.join(formats)}", "; ".join(wrong), "leave that format out")
