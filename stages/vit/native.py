"""Our own weights format: `model.safetensors` with timm's parameter names, and `model.json` with the settings.

Nothing is loaded that does not fit the settings to the last name and shape, and no pickle is ever opened.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.file_kind import file_kind
from vitpipe.stages.vit.settings_file import SETTINGS, TENSORS, native_files, read_settings, settings_json
from vitpipe.stages.vit.shapes import difference, parameter_shapes


def save_native(folder: Path, state: Mapping[str, Tensor], settings: ModelSettings) -> None:
    """Write both files into `folder`. UsageError when the state does not fit such a model."""
    _compare(f"save native weights to {folder}", {name: tuple(t.shape) for name, t in state.items()}, settings)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, folder / TENSORS)
    (folder / SETTINGS).write_bytes(settings_json(settings))


def load_native(folder: Path) -> tuple[ModelSettings, dict[str, Tensor]]:
    """Read what `save_native` wrote: the settings, and the tensors in the dtype in which they were saved.

    Errors: UsageError for pickles, missing files and shapes that do not fit; IntegrityError for damaged files.
    """
    tensors = folder / TENSORS
    if not tensors.is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        do = "only safetensors are opened: a pickle (.pt, .pth, .bin) can run code, convert it where you trust it"
        raise UsageError(f"load native weights from {folder}", f"no {TENSORS} there, but {found}", do)
    settings = read_settings(folder / SETTINGS)
    state = read_tensors(tensors)
    _compare(f"load {tensors}", {name: tuple(tensor.shape) for name, tensor in state.items()}, settings)
    return settings, state


def load_weights(artifact: Weights | Score, scratch: Path) -> tuple[ModelSettings, dict[str, Tensor]]:
    """Fetch an artifact's native files into `scratch`, verified, and load them. Errors: those of both steps."""
    for file in native_files(artifact):
        artifact.fetch(file.path, scratch)
    return load_native(scratch / "native")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. UsageError for a pickle under that name, IntegrityError for a damaged file."""
    if file_kind(path) in ("zip", "pickle"):  # torch.save writes either
        raise UsageError(f"read {path}", "it is a pickle, which can run code", "convert it to safetensors first")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise IntegrityError(f"read {path}", f"it is damaged: {error}", "fetch or convert it again") from error


def _compare(asked: str, found: Mapping[str, tuple[int, ...]], settings: ModelSettings) -> None:
    lines = difference(found, parameter_shapes(settings))
    if lines:
        shown = "; ".join(lines[:12]) + (f"; and {len(lines) - 12} more" if len(lines) > 12 else "")
        raise UsageError(asked, f"the tensors do not fit the model: {shown}", "use the settings they were saved with")
