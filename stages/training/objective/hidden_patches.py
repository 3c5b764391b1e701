"""What a masked autoencoder asks of an image: which patches its encoder sees, and what the hidden ones look like.

Every draw is keyed by (seed, position in the endless sequence). Knows no model. Shapes: B images, N patches, V visible
and C = N - V hidden ones, P side of a patch.
"""

from dataclasses import replace

import numpy as np
import torch

from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.keys import Ints, uniforms
from vitpipe.stages.training.objective.corruption import patches


def hidden(batch: Batch, patch_px: int, visible: int, seed: int) -> Batch:
    """The batch as a question about its hidden patches: `hints` are those of `draw`, labels the hidden pixels.

    Labels are uint8 (B, C, 3 P P), channel by channel. Those of the data are ignored.
    """
    patches_BNpp = patches(batch.images_BCHW, patch_px)
    kept_BV, hidden_BC = draw(batch.positions_B.numpy(), patches_BNpp.shape[1], visible, seed)
    asked = patches_BNpp[torch.arange(len(hidden_BC))[:, None], hidden_BC].flatten(2)
    return replace(batch, labels=asked, hints=(torch.from_numpy(kept_BV), torch.from_numpy(hidden_BC)))


def draw(positions_B: Ints, num_patches: int, visible: int, seed: int) -> tuple[Ints, Ints]:
    """Numbers of the visible patches (B, V) and of the hidden ones (B, C), each ascending; all choices are as likely.

    As `random_masking` of models_mae.py: the patches of the `visible` smallest of N uniform draws are kept.
    """
    order_BN = uniforms(positions_B, num_patches, "mae", seed).argsort(axis=1, kind="stable")
    return np.sort(order_BN[:, :visible], axis=1), np.sort(order_BN[:, visible:], axis=1)
