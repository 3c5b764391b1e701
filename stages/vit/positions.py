"""Position embeddings as arrays: joining the tables of two axes, and resizing a learned grid.

No two libraries resize alike, so each kernel is named after its origin. Knows nothing of models or files.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vitpipe.infra.errors import UsageError

ResizeMode = Literal["vit_paper", "timm", "huggingface", "torchvision"]

_KERNELS: dict[ResizeMode, dict[str, Any]] = {
    # vision_transformer checkpoint.interpolate_posembed: scipy.ndimage.zoom(order=1), which is this kernel exactly
    "vit_paper": {"mode": "bilinear", "align_corners": True},
    "timm": {"mode": "bicubic", "align_corners": False, "antialias": True},  # layers/pos_embed.py
    "huggingface": {"mode": "bicubic", "align_corners": False},  # ViTEmbeddings.interpolate_pos_encoding
    "torchvision": {"mode": "bicubic", "align_corners": True},  # vision_transformer.interpolate_embeddings
}


def resize_positions(
    positions: Tensor, old_grid: int | tuple[int, int], new_grid: int | tuple[int, int], mode: ResizeMode
) -> Tensor:
    """Resize a position table (1, C + h*w, D) to another grid of patches; the C leading rows stay as they are.

    Computed in the precision of the mode's origin (scipy's is float64), returned in the input's dtype. UsageError when
    the table does not have the rows of `old_grid`.
    """
    old_hw, new_hw = _sides(old_grid), _sides(new_grid)
    leading = positions.shape[1] - old_hw[0] * old_hw[1]
    if leading not in (0, 1):
        asked = f"resize positions from {old_hw[0]}x{old_hw[1]} to {new_hw[0]}x{new_hw[1]} patches"
        patches = f"{old_hw[0]} x {old_hw[1]} = {old_hw[0] * old_hw[1]} patches"
        found = f"the table has {positions.shape[1]} rows, {patches}"
        raise UsageError(asked, found, "give the grid the table was made for")
    if old_hw == new_hw:
        return positions
    width = positions.shape[2]
    grid_1Dhw = positions[:, leading:].reshape(1, *old_hw, width).permute(0, 3, 1, 2)
    grid_1Dhw = grid_1Dhw.double() if mode == "vit_paper" else grid_1Dhw.float()
    resized_1Dhw = F.interpolate(grid_1Dhw, size=new_hw, **_KERNELS[mode])
    resized_1ND = resized_1Dhw.permute(0, 2, 3, 1).reshape(1, new_hw[0] * new_hw[1], width)
    return torch.cat([positions[:, :leading], resized_1ND.to(positions.dtype)], dim=1)


def resize_rows(table_GD: Tensor, new_rows: int, mode: ResizeMode) -> Tensor:
    """Resize the table of one axis (G, D) of learned 2-D positions, with the mode's kernel along that axis."""
    rows, width = table_GD.shape
    return resize_positions(table_GD[None], (rows, 1), (new_rows, 1), mode).reshape(new_rows, width)


def join_axes(x_GD: Tensor, y_GD: Tensor) -> Tensor:
    """Join the tables of two axes to (1, N, D): for each patch, `x_GD` of its column, then `y_GD` of its row."""
    columns_GGD = x_GD[None, :, :].expand(y_GD.shape[0], -1, -1)
    rows_GGD = y_GD[:, None, :].expand(-1, x_GD.shape[0], -1)
    return torch.cat([columns_GGD, rows_GGD], dim=2).flatten(0, 1)[None]


def _sides(grid: int | tuple[int, int]) -> tuple[int, int]:
    return (grid, grid) if isinstance(grid, int) else grid
