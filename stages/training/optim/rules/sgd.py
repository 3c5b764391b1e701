"""SGD with momentum; torch's own, or with its momentum in bf16."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from vitpipe.stages.training.optim.rule import Dtype, Fused, Moments, OptimizerSettings

if TYPE_CHECKING:
    from torch import Tensor


class Sgd(OptimizerSettings):
    """Steps along a sum of gradients in which older ones fade (paper, section 4.1, for fine-tuning)."""

    kind: Literal["sgd"]
    """SGD with momentum."""
    uses: ClassVar[frozenset[str]] = frozenset({"momentum"})
    usual_rates: ClassVar[tuple[float, float] | None] = (1e-4, 1.0)
    """Table 4 has 1e-3 to 6e-2 for fine-tuning, Goyal et al. 2017 0.1 for each 256 images from scratch."""

    @property
    def moments(self) -> Mapping[str, Dtype]:
        """The momentum; torch keeps none where it is 0."""
        return {"momentum_buffer": self.state_dtype} if self.momentum or self.fused is None else {}

    @property
    def fused(self) -> Fused | None:
        """torch's SGD, which keeps its momentum in the type of the weights."""
        return Fused("SGD", {"momentum": self.momentum}, decouples=False) if self.state_dtype == "fp32" else None

    def update(self, weight: "Tensor", grad: "Tensor", moments: Moments, lr: float, updates: int) -> None:
        """As torch's SGD, without dampening."""
        moment = moments["momentum_buffer"]
        moment.mul_(self.momentum).add_(grad)
        weight.add_(moment, alpha=-lr)
