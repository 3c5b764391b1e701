"""What a conversion will cost, and what it cannot do, said before anything runs. No torch."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from vitpipe.stages.artifacts import Artifact, Checkpoint
from vitpipe.stages.commits import at_commits
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.foreign.located import is_local, locate
from vitpipe.stages.convert.foreign.weights import glance
from vitpipe.stages.convert.formats.common import format_of
from vitpipe.stages.convert.numbers import ITEM_BYTES
from vitpipe.stages.convert.task import refuse
from vitpipe.stages.estimates import Estimate, Given, Known
from vitpipe.stages.images.manifest import known_names
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.checkpoint.committed_steps import average_files, no_average
from vitpipe.stages.vit.flops import num_parameters

_BYTES_PER_SECOND = 100e6  # read, written, hashed and read again for the proof, on one core
_TASK_BYTES = 600 * 2**20  # a torch process that maps its input
_PROOF, _GRAPH = 3, 5
"""Copies of the parameters in fp32: a proof holds both models and a state; a graph the model, its graph, the folded
constants and the file."""


def estimate(config: ConvertConfig, resources: ConvertResources, inputs: Given, known: Known) -> Estimate:
    """Bytes written and hours. UsageError when a format cannot hold the model, or an average is wanted and not kept."""
    if config.source is not None and not is_local(config.source.path):
        source, commits = at_commits(config.source)
        if commits:  # what is not there is told before anything runs
            with tempfile.TemporaryDirectory(prefix="vitpipe-plan-") as scratch:
                locate(source.path, Path(scratch))
        return Estimate(notes=(f"the model is recognised once {source.path} is fetched",))
    foreign = glance(config.source) if config.source else None
    given = (*inputs.get("checkpoint", ()), *inputs.get("weights", ()))
    model = foreign.settings if foreign else getattr(given[0], "model", None)
    if model is None:
        return Estimate(class_names=_names(given[0]), notes=("the model is not known yet",))
    settings = ModelSettings.model_validate(model)
    refuse(config.formats, settings)
    if config.use == "ema":
        _need_average(inputs.get("checkpoint", ()))
    parameters, formats = num_parameters(settings), [format_of(name) for name in config.formats]
    copies = _GRAPH if any(each.links is None for each in formats) else _PROOF
    written = parameters * ITEM_BYTES[config.dtype] * len(config.formats)
    return Estimate(
        bytes=written,
        memory_bytes=_TASK_BYTES + copies * 4 * parameters,
        hours=(4 * parameters + written) / _BYTES_PER_SECOND / 3600,
        num_classes=settings.classes,
        class_names=foreign.labels if foreign else _names(given[0]),
        model=settings.model_dump(mode="json"),
        notes=tuple(f"{each.name}: {note}" for each in formats if (note := each.unsaid(settings))),
    )


def _names(source: Artifact | Estimate) -> tuple[str, ...] | None:
    names = known_names(source)
    return None if names is None else tuple(names.values())


def _need_average(given: Sequence[Artifact | Estimate]) -> None:
    for source in given:
        if isinstance(source, Checkpoint):
            kept, name = bool(average_files(file.path for file in source.files)), source.uri
        else:
            kept, name = getattr(source, "averaged", None) is not False, "that pretraining"
        if not kept:
            raise no_average(name)
