"""What comes with depth: many blocks in a row, their branches dropped at random in training. Knows no kind of block."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitpipe.stages.model_settings import KeptBranches


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, recompute: bool) -> Tensor:
    """Pass `x` through all blocks; with `recompute` only their inputs are kept for the backward pass."""
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
    return x


def drop_rates(last: float, count: int) -> list[float]:
    """Drop rates of `count` blocks, growing linearly from 0 at the first to `last`."""
    return [last * depth / max(1, count - 1) for depth in range(count)]


def stochastic_depth(rate: float, kept: KeptBranches) -> nn.Module:
    """Stochastic depth, or nothing at rate 0, where a mask would still be drawn."""
    return StochasticDepth(rate, kept) if rate else nn.Identity()


class StochasticDepth(nn.Module):
    """Drop a branch for whole images with probability `rate`; kept ones are scaled up, or left as they are."""

    def __init__(self, rate: float, kept: KeptBranches = "scaled") -> None:
        super().__init__()
        self.rate, self.scaled = rate, kept == "scaled"
        # real on the meta device too; an integer, as DeepSpeed rounds buffers that are not
        self.register_buffer("keep_of_2_31", torch.tensor(round((1 - rate) * 2**31), device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale or zero each image's branch (B, ...) in training; leave it alone in evaluation.

        Compiled, the rate is read from a tensor: as a number it would be part of the graph, and each block's another.
        """
        if not self.training:
            return x
        one_each = (x.shape[0], *[1] * (x.ndim - 1))
        if torch.compiler.is_compiling():
            share = self.get_buffer("keep_of_2_31") / 2**31
            drawn = (torch.rand(one_each, device=x.device) < share).to(x.dtype)
            return x * (drawn / share if self.scaled else drawn)
        keep = 1 - self.rate
        kept = x.new_empty(one_each).bernoulli_(keep)
        return x * (kept.div_(keep) if self.scaled else kept)


def dropout(rate: float) -> nn.Module:
    """nn.Dropout, or nothing at rate 0, where torch would still draw a mask."""
    return nn.Dropout(rate) if rate else nn.Identity()
