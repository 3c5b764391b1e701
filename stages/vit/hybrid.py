"""The hybrids' stem: a ResNet whose feature map is cut into patches instead of the image (paper, section 3.1).

Post-activation bottlenecks as in vision_transformer's models_resnet.py, with timm's names. B images, C channels, H and
W sides of a feature map, N patches, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import BASE_WIDTH
from vitpipe.stages.vit.convolutions import BottleneckStage, GroupNorm, Shortcut, StdConv, pad_same
from vitpipe.stages.vit.patches import PatchProjection, pixels


class HybridEmbed(nn.Module):
    """Images (B, 3, H, W) through the stem, and each patch of its feature map projected: (B, N, D)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        stages = settings.stem or ()
        self.image_px = settings.image_px
        self.backbone: StemRoot | Stem = Stem(stages) if stages else StemRoot()
        self.proj = PatchProjection(settings.sizes.width, settings.sizes.patch_px, settings.numbers.patch_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to embedded patches (B, N, D)."""
        x_BND: Tensor = self.proj(self.backbone(pixels(images, self.image_px, self.proj.weight.dtype)))
        return x_BND


class StemRoot(nn.Module):
    """A 7x7 convolution and a max pooling, each with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StdConv(3, BASE_WIDTH, 7, 2, same=True)
        self.norm = GroupNorm(BASE_WIDTH)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a feature map (B, 64, H / 4, W / 4), rounded up."""
        padded = pad_same(self.norm(self.conv(x_BCHW)), kernel=3, stride=2, value=-torch.inf)
        return F.max_pool2d(padded, kernel_size=3, stride=2)


class Stem(nn.Module):
    """The root and its stages; each stage but the first halves the feature map and doubles the channels."""

    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = StemRoot()
        self.stages = nn.ModuleList(_stage(number, units) for number, units in enumerate(stages))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the last stage's feature map."""
        x_BCHW = self.stem(x_BCHW)
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
        return x_BCHW


class Bottleneck(nn.Module):
    """A post-activation unit; its stride lies on the 3x3 convolution, and on the shortcut around it."""

    def __init__(self, channels: int, narrow: int, stride: int, first: bool) -> None:
        super().__init__()
        self.downsample = Shortcut(channels, 4 * narrow, stride, norm=True) if first else nn.Identity()
        self.conv1, self.norm1 = StdConv(channels, narrow, 1), GroupNorm(narrow)
        self.conv2, self.norm2 = StdConv(narrow, narrow, 3, stride, same=True), GroupNorm(narrow)
        self.conv3, self.norm3 = StdConv(narrow, 4 * narrow, 1), GroupNorm(4 * narrow, relu=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 x narrow, H / stride, W / stride)."""
        y_BCHW = self.norm2(self.conv2(self.norm1(self.conv1(x_BCHW))))
        return F.relu(self.norm3(self.conv3(y_BCHW)) + self.downsample(x_BCHW))


def _stage(number: int, units: int) -> BottleneckStage:
    narrow = BASE_WIDTH * 2**number
    before = 2 * narrow if number else BASE_WIDTH
    return BottleneckStage(
        Bottleneck(4 * narrow if unit else before, narrow, stride=2 if number and not unit else 1, first=not unit)
        for unit in range(units)
    )
