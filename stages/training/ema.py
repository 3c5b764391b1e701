"""A running average of the parameters in fp32, cut as ZeRO cuts them: each rank averages the weights that it updates.

So nothing is gathered, and what a rank keeps and saves shrinks with the number of ranks. Knows no DeepSpeed.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from infra.errors import IntegrityError
from stages.training.steps import average_file


class Average:
    """Of the weights that one rank updates, by name: the same names in every call. A rank may have none."""

    def __init__(self, masters: Mapping[str, Tensor], decay: float, rank: int) -> None:
        """Begin with the weights as they are."""
        self._kept = {name: master.detach().float().clone() for name, master in masters.items()}
        self._decay, self._name = decay, average_file(rank)

    @torch.no_grad()
    def update(self, masters: Mapping[str, Tensor]) -> None:
        """Move towards the weights after a step: average x decay + weights x (1 - decay)."""
        if self._kept:
            torch._foreach_lerp_(list(self._kept.values()), [masters[name] for name in self._kept], 1 - self._decay)

    def save(self, folder: Path) -> None:
        """Write this rank's file into `folder`; a rank that updates nothing has none."""
        if self._kept:
            torch.save({"average": self._kept}, folder / self._name)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. IntegrityError when it is not of these weights."""
        if not self._kept:
            return
        found = torch.load(folder / self._name, map_location="cpu", weights_only=True)["average"]
        shapes = {name: tensor.shape for name, tensor in found.items()}
        if shapes != {name: kept.shape for name, kept in self._kept.items()}:
            raise IntegrityError(f"load {folder / self._name}", "it averages other weights", "use another step")
        for name, kept in self._kept.items():
            kept.copy_(found[name])
