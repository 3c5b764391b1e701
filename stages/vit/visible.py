"""The encoder on some of an image's patches alone, each at its own place: what makes masked autoencoders cheap.

Knows no objective. Shapes: B images, N patches, V visible ones, T tokens (V and the class token), D width, G patches
along a side.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitpipe.stages.vit.model import ViT


def encode_visible(vit: ViT, images: Tensor, kept_BV: Tensor) -> Tensor:
    """Images (B, 3, H, W) to the tokens (B, T, D) of the patches `kept_BV` (int64), after the class token if any.

    A position table that is a parameter stays where it is: it is used, and its gradient is zero. ZeRO's collectives
    and the checkpoints then treat it as every other one.
    """
    x_BND: Tensor = vit.patch_embed(images)
    positions_1TD = vit.positions()
    if positions_1TD.requires_grad:
        positions_1TD = positions_1TD.detach() + 0.0 * positions_1TD
    leading = positions_1TD.shape[1] - x_BND.shape[1]
    x_BTD = rows(x_BND + positions_1TD[:, leading:], kept_BV)
    if vit.cls_token is not None:
        first_11D = vit.cls_token + positions_1TD[:, :leading]
        x_BTD = torch.cat([first_11D.expand(len(x_BTD), -1, -1), x_BTD], dim=1)
    y_BTD: Tensor = vit.encode(vit.pos_drop(x_BTD))
    return y_BTD


def rows(x_BND: Tensor, numbers_BV: Tensor) -> Tensor:
    """Take each image's own rows: (B, N, D) and int64 (B, V) to (B, V, D)."""
    return x_BND.gather(1, numbers_BV[..., None].expand(-1, -1, x_BND.shape[2]))


def fixed_table(grid: int, width: int, *, class_token: bool) -> NDArray[np.float32]:
    """Compute the fixed positions (1, N, D) of facebookresearch/mae util/pos_embed.py: sin x, cos x, sin y, cos y.

    With `class_token` a row of zeros comes first. `sincos.sincos_2d` is another table: its frequencies end at 1/10000,
    these fall short of it by one step.
    """
    quarter = width // 4
    omega = 1 / 10_000 ** (np.arange(quarter, dtype=np.float64) / quarter)
    axis = np.arange(grid, dtype=np.float64)
    y_N, x_N = (line.ravel() for line in np.meshgrid(axis, axis, indexing="ij"))
    x_Nq, y_Nq = x_N[:, None] * omega, y_N[:, None] * omega
    table_ND = np.concatenate([np.sin(x_Nq), np.cos(x_Nq), np.sin(y_Nq), np.cos(y_Nq)], axis=1)
    return np.pad(table_ND, ((int(class_token), 0), (0, 0)))[None].astype(np.float32)
