"""A running average of the parameters in fp32, cut as they are saved: each rank averages its own share.

So nothing is gathered, and what a rank keeps and saves shrinks with the number of ranks. Knows no DeepSpeed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class WeightAverage:
    """Running average of one rank's weights, which are updated in place; `kept` has their order. May be of none."""

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        """Begin with the weights as they are."""
        self._weights = list(weights)
        self.kept = [weight.detach().float().clone() for weight in weights]
        self._decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights after a step: average x decay + weights x (1 - decay)."""
        if self.kept:
            torch._foreach_lerp_(self.kept, self._weights, 1 - self._decay)

    @torch.no_grad()
    def put(self) -> None:
        """Give the weights their average, once training is over."""
        torch._foreach_copy_(self._weights, self.kept)
