"""Rotary positions: angles of each patch by its place, and the turning of queries and keys by them.

Shapes: B images, H heads, T tokens, N patches, G patches along a side, E width of a head. Knows no model.
"""

import math

import numpy as np
import torch
from torch import Tensor

from vitpipe.stages.model_settings import Rope


def rope_table(rope: Rope, grid: int, head_width: int) -> Tensor:
    """Compute sines and cosines (2, N, E) of all patches in raster order, rows before columns.

    As timm's RotaryEmbeddingCat and RotaryEmbeddingDinoV3, and transformers' DINOv3ViTRopePositionEmbedding. Made by
    NumPy, so that it is there on the meta device too.
    """
    quarter = head_width // 4
    waves = np.float32(1) / np.float32(rope.theta) ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    place_G = np.arange(grid, dtype=np.float32)
    if rope.kind == "dinov3":
        place_G = np.float32(2 * math.pi) * ((place_G + np.float32(0.5)) / np.float32(grid) * 2 - 1)
    elif rope.grid:
        place_G = place_G / np.float32(grid) * np.float32(rope.grid)
    rows_GG, columns_GG = np.meshgrid(place_G, place_G, indexing="ij")
    place_N2 = np.stack([rows_GG.ravel(), columns_GG.ravel()], axis=1)
    angle_Nh = (place_N2[:, :, None] * waves).reshape(len(place_N2), -1)
    angle_NE = np.repeat(angle_Nh, 2, axis=1) if rope.kind == "eva02" else np.tile(angle_Nh, (1, 2))
    return torch.from_numpy(np.stack([np.sin(angle_NE), np.cos(angle_NE)]))


def turned(x_BHTE: Tensor, table_2NE: Tensor, kind: str) -> Tensor:
    """Turn the patches' rows, which are the last; class token and registers have no place and stay as they are.

    Computed in the table's precision, returned in that of `x_BHTE`.
    """
    prefix = x_BHTE.shape[2] - table_2NE.shape[1]
    patches_BHNE = x_BHTE[:, :, prefix:]
    if kind == "eva02":
        other_BHNE = torch.stack([-patches_BHNE[..., 1::2], patches_BHNE[..., ::2]], dim=-1).flatten(-2)
    else:
        first, second = patches_BHNE.chunk(2, dim=-1)
        other_BHNE = torch.cat([-second, first], dim=-1)
    sin_NE, cos_NE = table_2NE.unbind(0)
    turned_BHNE = (patches_BHNE * cos_NE + other_BHNE * sin_NE).to(x_BHTE.dtype)
    return torch.cat([x_BHTE[:, :, :prefix], turned_BHNE], dim=2)
