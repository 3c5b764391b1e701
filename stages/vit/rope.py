"""Rotary positions: angles of each patch by its place, and the turning of queries and keys by them.

Shapes: B images, H heads, T tokens, N patches, G patches along a side, E width of a head. Knows no model.
"""

import math

import torch
from torch import Tensor

from vitpipe.stages.model_settings import Rope


def rope_table(rope: Rope, grid: int, head_width: int) -> Tensor:
    """Compute sines and cosines (2, N, E) of all patches in raster order, rows before columns.

    As timm's RotaryEmbeddingCat and RotaryEmbeddingDinoV3, and transformers' DINOv3ViTRopePositionEmbedding, in fp32.
    """
    quarter = head_width // 4
    waves = 1 / rope.theta ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    if rope.kind == "eva02":
        place_G = torch.arange(grid, dtype=torch.float32)
        place_G = place_G / grid * rope.grid if rope.grid else place_G
    else:
        place_G = 2 * math.pi * ((torch.arange(grid, dtype=torch.float32) + 0.5) / grid * 2 - 1)
    place_N2 = torch.cartesian_prod(place_G, place_G).reshape(-1, 2)
    angle_Nh = (place_N2[:, :, None] * waves).flatten(1)
    angle_NE = angle_Nh.repeat_interleave(2, dim=1) if rope.kind == "eva02" else angle_Nh.repeat(1, 2)
    return torch.stack([angle_NE.sin(), angle_NE.cos()])


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
