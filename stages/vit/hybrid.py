"""The hybrids' stem: a ResNet whose feature map is cut into patches instead of the image (paper, section 3.1).

Post-activation bottlenecks as in vision_transformer's models_resnet.py, with timm's names. B images, C channels, H and
W sides of a feature map, N patches, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import BASE_WIDTH
from vitpipe.stages.vit.convolutions import GroupNorm, StdConv, pad_same
from vitpipe.stages.vit.depth import through
from vitpipe.stages.vit.patches import PatchProjection, pixels


class HybridEmbed(nn.Module):
    """Images (B, 3, H, W) through the stem, and each patch of its feature map projected: (B, N, D)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        stages = settings.stem or ()
        self.image_px = settings.image_px
        self.backbone: Root | Stem = Stem(stages) if stages else Root()
        self.proj = PatchProjection(settings.sizes.width, settings.sizes.patch_px, settings.patch_channels)

    def forward(self, images: Tensor) -> Tensor:
        x_BND: Tensor = self.proj(self.backbone(pixels(images, self.image_px, self.proj.weight.dtype)))
        return x_BND


class Root(nn.Module):
    """A 7x7 convolution and a pooling, each with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StdConv(3, BASE_WIDTH, 7, 2, same=True)
        self.norm = GroupNorm(BASE_WIDTH)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        padded = pad_same(self.norm(self.conv(x_BCHW)), kernel=3, stride=2, value=-torch.inf)
        return F.max_pool2d(padded, kernel_size=3, stride=2)


class Stem(nn.Module):
    """The root and its stages; each but the first halves the feature map and doubles the channels."""

    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = Root()
        self.stages = nn.ModuleList(Stage(number, units) for number, units in enumerate(stages))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(x_BCHW)
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
        return x_BCHW


class Stage(nn.Module):
    """Units on feature maps of one size."""

    def __init__(self, number: int, units: int) -> None:
        super().__init__()
        self.checkpoint_blocks = False
        narrow = BASE_WIDTH * 2**number
        before = 2 * narrow if number else BASE_WIDTH
        self.blocks = nn.ModuleList(
            Unit(4 * narrow if place else before, narrow, stride=2 if number and not place else 1, first=not place)
            for place in range(units)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return through(self.blocks, x_BCHW, self.checkpoint_blocks and self.training)


class Unit(nn.Module):
    """A post-activation bottleneck; its stride lies on the 3x3 convolution, and on the projection around it."""

    def __init__(self, channels: int, narrow: int, stride: int, first: bool) -> None:
        super().__init__()
        self.downsample = Projection(channels, 4 * narrow, stride) if first else nn.Identity()
        self.conv1, self.norm1 = StdConv(channels, narrow, 1), GroupNorm(narrow)
        self.conv2, self.norm2 = StdConv(narrow, narrow, 3, stride, same=True), GroupNorm(narrow)
        self.conv3, self.norm3 = StdConv(narrow, 4 * narrow, 1), GroupNorm(4 * narrow, relu=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.norm2(self.conv2(self.norm1(self.conv1(x_BCHW))))
        return F.relu(self.norm3(self.conv3(y_BCHW)) + self.downsample(x_BCHW))


class Projection(nn.Module):
    """What stands around the first unit of a stage, where size or channels change."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = StdConv(channels, out, 1, stride)
        self.norm = GroupNorm(out, relu=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.norm(self.conv(x_BCHW))
        return y_BCHW
