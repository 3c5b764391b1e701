"""The tensors to convert, fetched, verified and opened lazily: a checkpoint's state, or native weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Checkpoint, Score, Weights
from vitpipe.stages.convert.containers.safetensors_file import open_safetensors
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import ForeignWeights, reopen
from vitpipe.stages.convert.numbers import Arrays, ReadArray, Shape
from vitpipe.stages.convert.task import Source, settings_of
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.checkpoint.step_weights import open_step
from vitpipe.stages.vit.settings_file import TENSORS
from vitpipe.stages.vit.shapes import difference, parameter_shapes

Use = Literal["params", "ema"]


@dataclass(frozen=True)
class Tensors:
    """A model's parameters by their native names, each read when asked for, in fp32."""

    settings: ModelSettings
    shapes: dict[str, Shape]
    """In the model's order."""
    read: ReadArray


def open_source(source: Source, scratch: Path, use: Use) -> Tensors:
    """Fetch what is needed to `scratch`, every file verified before it is opened. Only a checkpoint has an average.

    Errors: UsageError where it kept none; IntegrityError for damaged files, or when the tensors are not those of the
    artifact's model.
    """
    settings = settings_of(source)
    if isinstance(source, ForeignWeights):
        named, _ = reopen(source, scratch)
        return Tensors(settings, *native_reader(named, source))
    if isinstance(source, Checkpoint):
        step = open_step(source, scratch, average=use == "ema")
        found, read = step.shapes, step.array
    else:
        opened = _open_native(source, scratch)
        found, read = opened.shapes, opened.read
    wanted = parameter_shapes(settings)
    if lines := difference(found, wanted):
        raise IntegrityError(f"convert {source.uri}", f"its tensors are not its model's: {'; '.join(lines)}", "")
    return Tensors(settings, wanted, read)


def _open_native(source: Weights | Score, scratch: Path) -> Arrays:
    path = f"native/{TENSORS}"
    if not source.has(path):
        raise UsageError(f"convert {source.uri}", "it holds no native weights", "convert the checkpoint instead")
    return open_safetensors([source.fetch(path, scratch)])
