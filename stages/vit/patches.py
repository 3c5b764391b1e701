"""From images to embedded patches: the E of equation 1. B images, C channels, N patches, D width, P side of a patch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings


class PatchEmbed(nn.Module):
    """A layer that cuts images into patches and projects each."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.image_px = settings.image_px
        self.proj = PatchProjection(settings.sizes.width, settings.sizes.patch_px)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to embedded patches (B, N, D)."""
        x_BND: Tensor = self.proj(pixels(images, self.image_px, self.proj.weight.dtype))
        return x_BND


class PatchProjection(nn.Module):
    """A VALID convolution with kernel and stride P, as one matrix product; pixels beyond the last patch are dropped."""

    def __init__(self, width: int, patch_px: int, channels: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, channels, patch_px, patch_px))
        self.bias = nn.Parameter(torch.zeros(width))
        self.patch_px = patch_px

    def forward(self, images: Tensor) -> Tensor:
        """Images or feature maps (B, C, H, W) to projected patches (B, N, D), in raster order."""
        patch, (batch, channels, height, width) = self.patch_px, images.shape
        rows, columns = height // patch, width // patch
        images = images[:, :, : rows * patch, : columns * patch]
        x_BCGPGP = images.reshape(batch, channels, rows, patch, columns, patch)
        x_BNp = x_BCGPGP.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch * patch)
        return F.linear(x_BNp, self.weight.flatten(1), self.bias)


def pixels(images: Tensor, image_px: int, dtype: torch.dtype) -> Tensor:
    """Cast images (B, 3, image_px, image_px) to `dtype`, scaling bytes to [-1, 1]. UsageError for another shape."""
    if images.shape[1:] != (3, image_px, image_px):
        asked, found = f"embed images of shape {tuple(images.shape)}", f"the model takes (B, 3, {image_px}, {image_px})"
        raise UsageError(asked, found, "resize the images, or the positions with vitpipe.stages.vit.adapt")
    if images.dtype == torch.uint8:
        images = images.float() / 127.5 - 1
    return images.to(dtype)
