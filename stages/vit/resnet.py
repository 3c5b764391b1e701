"""The paper's ResNets: BiT's pre-activation ResNets with group norms and standardised kernels (section 4.1).

As big_vision's models/bit_paper.py, with timm's names except for the head, which is linear here as in every model. The
root's pooling pads with zeros like BiT's released code and timm, where bit_paper.py pads with minus infinity.
B images, C channels, H and W sides of a feature map, R features, K classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import KeptBranches, ModelSettings
from vitpipe.stages.variants import BASE_WIDTH
from vitpipe.stages.vit.convolutions import BottleneckStage, GroupNorm, Shortcut, StdConv
from vitpipe.stages.vit.depth import drop_rates, stochastic_depth
from vitpipe.stages.vit.patches import pixels


class BiTResNet(nn.Module):
    """Images (B, 3, H, W), uint8 or float in [-1, 1], to logits (B, K). UsageError when `classes` is not set."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        numbers = settings.resnet
        assert numbers is not None, f"{settings.variant} is no ResNet"
        if settings.classes is None:
            raise UsageError("build a ResNet", "its settings name no number of classes", "set model.classes")
        self.settings = settings
        width = BASE_WIDTH * numbers.width_factor
        rates = iter(drop_rates(settings.stochastic_depth, sum(numbers.blocks)))
        self.stem = BiTRoot(width)
        self.stages = nn.ModuleList(
            _stage(width * 2**number, number, [next(rates) for _ in range(units)], settings.kept_branches)
            for number, units in enumerate(numbers.blocks)
        )
        self.norm = GroupNorm(settings.feature_width)
        self.head = nn.Linear(settings.feature_width, settings.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, K)."""
        logits_BK: Tensor = self.head(self.features(images))
        return logits_BK

    def features(self, images: Tensor) -> Tensor:
        """Images to what the head sees (B, R): the mean over the last feature map."""
        x_BCHW = self.stem(pixels(images, self.settings.image_px, self.stem.conv.weight.dtype))
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
        y_BR: Tensor = self.norm(x_BCHW).mean(dim=(2, 3))
        return y_BR


class BiTRoot(nn.Module):
    """A 7x7 convolution and a max pooling, each with stride 2; the first norm is the first unit's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = StdConv(3, width, 7, 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a feature map (B, width, H / 4, W / 4), rounded up."""
        return F.max_pool2d(F.pad(self.conv(x_BCHW), (1, 1, 1, 1)), kernel_size=3, stride=2)


class PreActBottleneck(nn.Module):
    """A pre-activation unit; its stride lies on the 3x3 convolution, and on the shortcut around it."""

    def __init__(self, channels: int, narrow: int, stride: int, drop_path: nn.Module, first: bool) -> None:
        super().__init__()
        self.downsample = Shortcut(channels, 4 * narrow, stride, norm=False) if first else None
        self.norm1, self.conv1 = GroupNorm(channels), StdConv(channels, narrow, 1)
        self.norm2, self.conv2 = GroupNorm(narrow), StdConv(narrow, narrow, 3, stride)
        self.norm3, self.conv3 = GroupNorm(narrow), StdConv(narrow, 4 * narrow, 1)
        self.drop_path = drop_path

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 x narrow, H / stride, W / stride)."""
        active_BCHW = self.norm1(x_BCHW)
        around_BCHW = x_BCHW if self.downsample is None else self.downsample(active_BCHW)
        y_BCHW: Tensor = self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(active_BCHW)))))
        y_BCHW = around_BCHW + self.drop_path(y_BCHW)
        return y_BCHW


def _stage(narrow: int, number: int, rates: list[float], kept: KeptBranches) -> BottleneckStage:
    before, drops = 2 * narrow if number else narrow, [stochastic_depth(rate, kept) for rate in rates]
    return BottleneckStage(
        PreActBottleneck(4 * narrow if unit else before, narrow, 2 if number and not unit else 1, drop, first=not unit)
        for unit, drop in enumerate(drops)
    )
