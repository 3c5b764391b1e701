"""Masked patch prediction (paper, sections 4.6 and B.1.2): a ViT that names what corrupted patches looked like.

The encoder's parameters keep their names; the mask token and the predictor beside them are of use here alone.
Shapes: B images, N patches, C corrupted ones, T tokens, D width, O outputs a patch, M colours a patch (1 or 16).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import NUM_COLOURS
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.visible import rows


class MaskedPatchViT(ViT):
    """Images and their corruption to predictions (B, C, O) for the corrupted patches. `settings` have no classes."""

    def __init__(self, settings: ModelSettings, num_outputs: int) -> None:
        super().__init__(settings)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, settings.sizes.width))
        self.predictor = nn.Linear(settings.sizes.width, num_outputs)

    def forward(self, images: Tensor, source_BN: Tensor | None = None, corrupted_BC: Tensor | None = None) -> Tensor:
        """Predict the corrupted patches that `corruption.draw` gives; without them, all are masked and predicted."""
        x_BND: Tensor = self.patch_embed(images)
        if source_BN is None or corrupted_BC is None:
            corrupted_BC = torch.arange(x_BND.shape[1], device=x_BND.device).expand(len(x_BND), -1)
            source_BN = torch.full_like(corrupted_BC, x_BND.shape[1])
        masked_BN1 = (source_BN == x_BND.shape[1])[..., None]
        shown_BND = rows(x_BND, source_BN.clamp(max=x_BND.shape[1] - 1))
        tokens_BTD = self.place(torch.where(masked_BN1, self.mask_token, shown_BND))
        y_BND = self.encode(tokens_BTD)[:, tokens_BTD.shape[1] - x_BND.shape[1] :]  # the class token predicts nothing
        predicted_BCO: Tensor = self.predictor(rows(y_BND, corrupted_BC))
        return predicted_BCO


def colour_loss(predicted_BCO: Tensor, colours_BCM: Tensor) -> Tensor:
    """Cross-entropy (B,) over 512 colours, the mean over an image's corrupted patches and their cells."""
    logits = predicted_BCO.float().reshape(-1, NUM_COLOURS)
    losses = F.cross_entropy(logits, colours_BCM.flatten(), reduction="none")
    return losses.reshape(len(predicted_BCO), -1).mean(dim=1)


def pixel_loss(predicted_BCO: Tensor, pixels_BCO: Tensor) -> Tensor:
    """Squared error (B,) to uint8 pixels on the scale of [-1, 1], the mean over an image's corrupted patches."""
    wanted_BCO = pixels_BCO.float() / 127.5 - 1
    return F.mse_loss(predicted_BCO.float(), wanted_BCO, reduction="none").mean(dim=(1, 2))
