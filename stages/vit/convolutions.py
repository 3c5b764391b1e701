"""What hybrid stems and BiT ResNets share: weight-standardised convolutions, group norms, and how stages are built.

Epsilons are timm's: 1e-8 under the root of the kernels' variance and 1e-5 in the norms. big_vision's bit_paper.py has
1e-10 and 1e-5. vision_transformer's stems add 1e-5 to the kernels' deviation instead and have Flax's 1e-6 in the norms:
with random weights that changes an R26+S/32's logits by 2e-4, nearly all of it through the kernels' epsilon.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.vit.depth import run_blocks

KERNEL_EPS, NORM_EPS, GROUPS = 1e-8, 1e-5, 32


class StdConv(nn.Conv2d):
    """A convolution without bias whose kernel is standardised over inputs and places, for each output channel.

    `same` pads as TensorFlow does, depending on the image's size and with the odd pixel at the end; else symmetrically.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, *, same: bool = False) -> None:
        super().__init__(channels, out, kernel, stride, padding=0 if same else kernel // 2, bias=False)
        self.same = same

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve with the standardised kernel: (B, C, H, W) to (B, out, H / stride, W / stride), rounded up."""
        if self.same:
            x_BCHW = pad_same(x_BCHW, self.kernel_size[0], self.stride[0])
        return F.conv2d(x_BCHW, standardised(self.weight), None, self.stride, self.padding)


class GroupNorm(nn.GroupNorm):
    """Normalise 32 groups of channels; with `relu` clip below 0 as well."""

    def __init__(self, channels: int, *, relu: bool = True) -> None:
        super().__init__(GROUPS, channels, eps=NORM_EPS)
        self.relu = relu

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise, and clip where asked to; the shape stays."""
        y_BCHW = super().forward(x_BCHW)
        return F.relu(y_BCHW, inplace=True) if self.relu else y_BCHW


class BottleneckStage(nn.Module):
    """Bottleneck units on feature maps of one size; the first unit changes size and channels."""

    def __init__(self, units: Iterable[nn.Module]) -> None:
        super().__init__()
        self.checkpoint_blocks = False
        self.blocks = nn.ModuleList(units)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Run all units in order."""
        return run_blocks(self.blocks, x_BCHW, self.checkpoint_blocks and self.training)


class Shortcut(nn.Module):
    """The projection around a stage's first unit, where size or channels change; post-activation units norm it."""

    def __init__(self, channels: int, out: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = StdConv(channels, out, 1, stride)
        self.norm = GroupNorm(out, relu=False) if norm else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Project (B, C, H, W) to (B, out, H / stride, W / stride)."""
        y_BCHW: Tensor = self.norm(self.conv(x_BCHW))
        return y_BCHW


def standardised(kernel_OIHW: Tensor) -> Tensor:
    """Give each output channel's weights mean 0 and variance 1, in fp32 at least: in bf16 the mean would be noise."""
    rows = kernel_OIHW.to(torch.promote_types(kernel_OIHW.dtype, torch.float32)).flatten(1)
    return F.layer_norm(rows, rows.shape[1:], eps=KERNEL_EPS).to(kernel_OIHW.dtype).view_as(kernel_OIHW)


def pad_same(x_BCHW: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad so that the output's side is the input's over the stride, rounded up; the larger half comes last."""
    height, width = x_BCHW.shape[-2:]
    rows, columns = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (height, width))
    return F.pad(x_BCHW, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=value)
