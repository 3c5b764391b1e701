"""Signum (Bernstein et al. 2018): an optimiser as somebody would add it, one file that the tests lay into the room."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vitpipe.stages.training.optim.rule import Dtype, OptimizerSettings

if TYPE_CHECKING:
    from torch import Tensor


class Signum(OptimizerSettings):
    """Steps by the sign of the momentum."""

    kind: Literal["signum"]
    """The sign of SGD's momentum."""
    damping: float = Field(default=0.0, ge=0, lt=1)
    """Share of the new gradient that is left out of the momentum."""
    uses: ClassVar[frozenset[str]] = frozenset({"momentum"})

    @property
    def moments(self) -> Mapping[str, Dtype]:
        """The momentum."""
        return {"signum_momentum": self.state_dtype}

    def update(
        self, weight: "Tensor", grad: "Tensor", moments: Mapping[str, "Tensor"], lr: float, updates: int
    ) -> None:
        """Every weight moves by the learning rate."""
        moment = moments["signum_momentum"]
        moment.mul_(self.momentum).add_(grad, alpha=1 - self.damping)
        weight.add_(moment.sign(), alpha=-lr)
