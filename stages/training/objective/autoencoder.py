"""The masked autoencoder of He et al. 2022 (facebookresearch/mae models_mae.py): hidden patches from visible ones.

The encoder's parameters keep their names; the decoder and the mask token beside them are of use here alone.
Shapes: B images, N patches, V visible and C hidden ones, T tokens, D width, E the decoder's, O = 3 P P pixels a patch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.images.keys import key
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.vit.depth import run_blocks
from vitpipe.stages.vit.model import Block, ViT
from vitpipe.stages.vit.visible import encode_visible, fixed_table, rows

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The scale of the pixels that are rebuilt, by channel (main_pretrain.py); the encoder takes [-1, 1] as all do."""
EPS = 1e-6
"""Added to a patch's variance (models_mae.py, forward_loss)."""


class MaskedAutoencoder(ViT):
    """Images and what is hidden of them to the hidden patches' pixels (B, C, O). `settings` have no classes."""

    def __init__(self, settings: ModelSettings, objective: ObjectiveSettings) -> None:
        super().__init__(settings)
        inner = objective.decoder_model(settings)
        width = inner.sizes.width
        self.num_visible = objective.visible(settings.grid**2)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_embed = nn.Linear(settings.sizes.width, width)
        self.decoder_blocks = nn.ModuleList(Block(inner, 0.0) for _ in range(inner.sizes.layers))
        self.decoder_norm = nn.LayerNorm(width, eps=settings.norm_eps)
        self.decoder_pred = nn.Linear(width, objective.outputs_of_patch(settings.sizes.patch_px))
        table = fixed_table(settings.grid, width, class_token=settings.pool == "cls")
        # real on the meta device too: a model made there and then filled has its table already
        self.register_buffer("decoder_table", torch.from_numpy(table), persistent=False)

    def forward(self, images: Tensor, kept_BV: Tensor | None = None, hidden_BC: Tensor | None = None) -> Tensor:
        """Rebuild the patches that `hidden_patches.draw` hides; without it, all but the first ones."""
        num_patches = self.settings.grid**2
        if kept_BV is None or hidden_BC is None:
            numbers_BN = torch.arange(num_patches, device=images.device).expand(len(images), -1)
            kept_BV, hidden_BC = numbers_BN[:, : self.num_visible], numbers_BN[:, self.num_visible :]
        seen_BTE = self.decoder_embed(encode_visible(self, images, kept_BV))
        leading = seen_BTE.shape[1] - kept_BV.shape[1]
        places = kept_BV[..., None].expand(-1, -1, seen_BTE.shape[2])
        x_BNE = self.mask_token.expand(len(images), num_patches, -1).scatter(1, places, seen_BTE[:, leading:])
        positions = self.get_buffer("decoder_table").to(self.decoder_norm.weight.dtype)
        x_BTE = torch.cat([seen_BTE[:, :leading], x_BNE], dim=1) + positions
        y_BTE = run_blocks(self.decoder_blocks, x_BTE, self.checkpoint_blocks and self.training)
        rebuilt_BCO: Tensor = self.decoder_pred(self.decoder_norm(rows(y_BTE[:, leading:], hidden_BC)))
        return rebuilt_BCO


def rebuilt_loss(rebuilt_BCO: Tensor, pixels_BCO: Tensor, normalise: bool) -> Tensor:
    """Squared error (B,) to uint8 pixels, the mean over an image's hidden patches; `normalise` brings each patch to
    mean 0 and variance 1 first."""
    channels = (pixels_BCO.float() / 255).chunk(3, dim=2)
    wanted_BCO = torch.cat([(one - mean) / std for one, mean, std in zip(channels, MEAN, STD, strict=True)], dim=2)
    if normalise:
        variance, mean = torch.var_mean(wanted_BCO, dim=2, keepdim=True)
        wanted_BCO = (wanted_BCO - mean) / (variance + EPS).sqrt()
    return F.mse_loss(rebuilt_BCO.float(), wanted_BCO, reduction="none").mean(dim=(1, 2))


@torch.no_grad()
def begin(model: MaskedAutoencoder, seed: int) -> None:
    """Fill all parameters as models_mae.py does, each from (seed, its name) alone: Xavier's uniform draws, the patch
    embedding and the three projections of an attention as one matrix each; N(0, 0.02) tokens; fixed positions."""
    grid, width = model.settings.grid, model.settings.sizes.width
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(key("mae", seed, name) >> 65)
        if name == "pos_embed":
            parameter.copy_(torch.from_numpy(fixed_table(grid, width, class_token=model.cls_token is not None)))
        elif name in ("cls_token", "mask_token"):
            nn.init.normal_(parameter, std=0.02, generator=generator)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter.view(len(parameter), -1), generator=generator)
        elif name == "patch_embed.proj.bias":  # left as torch's convolution has it
            bound = 1 / math.sqrt(model.patch_embed.proj.weight[0].numel())
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        else:
            nn.init.constant_(parameter, 1.0 if name.endswith(".weight") else 0.0)
