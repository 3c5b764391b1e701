"""Adapt a model's weights to another image size or other classes (paper, sections 3.1 and 3.2).

Knows no files. Parameters without a counterpart in the old model are initialised; those that do not fit are named.
"""

from collections.abc import Mapping

from torch import Tensor

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings, other_function
from vitpipe.stages.vit.init import initial_value
from vitpipe.stages.vit.positions import ResizeMode, resize_positions, resize_rows
from vitpipe.stages.vit.shapes import parameter_shapes


def adapt_state(
    state: Mapping[str, Tensor],
    old: ModelSettings,
    new: ModelSettings,
    seed: int,
    position_resize: ResizeMode = "vit_paper",
    *,
    new_head: bool = True,
) -> dict[str, Tensor]:
    """Turn the state of an `old` model into one of a `new` model, which may differ in image size, classes and head.

    With `new_head` the head becomes a zero linear layer, and the old representation is dropped where `new` has none;
    without, the head is kept. UsageError naming the settings or tensors that do not fit.
    """
    if found := other_function(old, new):
        raise UsageError("adapt a model's weights", found, "leave these as they are")
    fresh = ("head.", "pre_logits.") if old.representation != new.representation else ("head.",)
    adapted = {}
    for name, shape in parameter_shapes(new).items():
        if new_head and name.startswith(fresh):
            adapted[name] = initial_value(name, shape, seed)
        else:
            adapted[name] = _resized(name, state[name], old.grid, new.grid, position_resize)
        if adapted[name].shape != shape:
            found = f"{name} is {tuple(adapted[name].shape)}, the new model has {shape}"
            raise UsageError("adapt a model's weights", found, "ask for a new head, or keep classes and representation")
    return adapted


def _resized(name: str, tensor: Tensor, old_grid: int, new_grid: int, mode: ResizeMode) -> Tensor:
    if name == "pos_embed":
        return resize_positions(tensor, old_grid, new_grid, mode)
    if name in ("pos_embed_x", "pos_embed_y"):
        return resize_rows(tensor, new_grid, mode)
    if name.endswith("attn.relative") and old_grid != new_grid:
        asked = f"adapt a model from {old_grid}x{old_grid} to {new_grid}x{new_grid} patches"
        found = "its relative positions are offsets in raster order, which mean other pixels on another grid"
        raise UsageError(asked, found, "keep the image size, or pretrain with another kind of position")
    return tensor
