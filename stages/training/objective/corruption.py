"""What masked patch prediction asks of an image: which patches are corrupted and how, and what they looked like.

Every draw is keyed by (seed, position in the endless sequence). Knows no model. Shapes: B images, N patches,
C = N // 2 corrupted ones, P side of a patch, M colours of a patch (1 or 16).
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.keys import Ints, uniforms
from vitpipe.stages.training.config import CELLS, PatchTarget

MASKED, SWAPPED = 0.8, 0.1
"""Shares of the corrupted half that become the mask token, and another patch of the image; the rest stays as it is
(section B.1.2)."""
LEVELS = 8
"""Levels of a colour channel: 3 bits."""


def corrupted(batch: Batch, patch_px: int, target: PatchTarget, seed: int) -> Batch:
    """The batch as a question about its patches: `hints` are those of `draw`, labels what the corrupted ones hold.

    Labels are int64 colours (B, C, M), or with `l2` the uint8 pixels (B, C, 3 P P). Those of the data are ignored.
    """
    patches_BNpp = patches(batch.images_BCHW, patch_px)
    source_BN, corrupted_BC = draw(batch.positions_B.numpy(), patches_BNpp.shape[1], seed)
    asked = patches_BNpp[torch.arange(len(source_BN))[:, None], corrupted_BC]
    labels = asked.flatten(2) if target == "l2" else colours(asked, CELLS[target])
    return replace(batch, labels=labels, hints=(torch.from_numpy(source_BN), torch.from_numpy(corrupted_BC)))


def draw(positions_B: Ints, num_patches: int, seed: int) -> tuple[Ints, Ints]:
    """Whose embedding each patch shows (B, N), and the numbers of the corrupted half (B, C), ascending.

    A source is the patch itself, another patch of the image, or N for the mask token.
    """
    draws = uniforms(positions_B, 3 * num_patches, "masked_patch", seed)
    rank, kind, other = (draws[:, start : start + num_patches] for start in range(0, 3 * num_patches, num_patches))
    corrupted_BC = np.sort(rank.argsort(axis=1, kind="stable")[:, : num_patches // 2], axis=1)
    kind_BC, other_BC = (np.take_along_axis(of, corrupted_BC, axis=1) for of in (kind, other))
    others_BC = np.minimum((other_BC * (num_patches - 1)).astype(np.int64), num_patches - 2)
    others_BC += others_BC >= corrupted_BC  # all patches but the one itself
    swapped_BC = np.where(kind_BC < MASKED + SWAPPED, others_BC, corrupted_BC)
    source_BN = np.tile(np.arange(num_patches), (len(positions_B), 1))
    np.put_along_axis(source_BN, corrupted_BC, np.where(kind_BC < MASKED, num_patches, swapped_BC), axis=1)
    return source_BN, corrupted_BC


def patches(images_BCHW: Tensor, patch_px: int) -> Tensor:
    """Cut images (B, 3, H, W) into patches (B, N, 3, P, P), numbered as the patch embedding numbers them."""
    tiles_BCGGPP = images_BCHW.unfold(2, patch_px, patch_px).unfold(3, patch_px, patch_px)
    return tiles_BCGGPP.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def colours(patches_BCpp: Tensor, cells: int) -> Tensor:
    """The mean colour of each of `cells` x `cells` parts of uint8 patches (B, C, 3, P, P): int64 (B, C, M) below 512.

    Red has the highest three bits. Integer arithmetic, so a mean on the edge of two levels never wavers.
    """
    images, number, _, patch_px, _ = patches_BCpp.shape
    side = patch_px // cells
    parts = patches_BCpp.reshape(images, number, 3, cells, side, cells, side)
    levels_BC3cc = parts.sum((-3, -1), dtype=torch.int64) // (side * side * 256 // LEVELS)
    red, green, blue = levels_BC3cc.unbind(2)
    colours_BCM: Tensor = ((red * LEVELS + green) * LEVELS + blue).flatten(2)
    return colours_BCM
