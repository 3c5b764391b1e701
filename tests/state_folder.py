"""Weights as the `state/` folder of a step that one rank wrote, without a training."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vitpipe.stages.training.checkpoint.state_files import LAYOUT, WEIGHTS, Layout, file_name, key


def write_weights(folder: Path, state: Mapping[str, Tensor]) -> list[Path]:
    """The files of the folder: all weights, no moments."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / file_name(WEIGHTS, 0)
    save_file({key("weight", name, 0): tensor.reshape(-1).contiguous() for name, tensor in state.items()}, weights)
    layout = Layout(
        updates=0, shapes={name: tuple(tensor.shape) for name, tensor in state.items()}, moments=(), average=False,
        runs=(tuple((name, 0, tensor.numel()) for name, tensor in state.items()),),
    )  # fmt: skip
    (folder / LAYOUT).write_bytes(layout.encoded())
    return [weights, folder / LAYOUT]
