"""Lion: one moment, steps by sign (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from vitpipe.stages.training.optim.rule import Decay, Dtype, Moments, OptimizerSettings

if TYPE_CHECKING:
    from torch import Tensor


class Lion(OptimizerSettings):
    """Every weight moves by the learning rate, in the direction of the sign of a mean of its gradients.

    The authors advise a learning rate 3 to 10 times smaller than AdamW's, and a weight decay as many times larger.
    """

    kind: Literal["lion"]
    """Steps of the learning rate's size by sign (Chen et al. 2023)."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Share of the moment in a step's mean, and share that the moment keeps."""
    uses: ClassVar[frozenset[str]] = frozenset({"betas"})
    usual_rates: ClassVar[tuple[float, float] | None] = (1e-7, 3e-3)
    """AdamW's by the authors' advice, 3 to 10 times smaller."""

    @property
    def moments(self) -> Mapping[str, Dtype]:
        """The running mean of the gradients."""
        return {"exp_avg": self.state_dtype}

    def update(self, weight: "Tensor", grad: "Tensor", moments: Moments, lr: float, updates: int) -> None:
        """The step's mean takes more of the new gradient than the mean that is kept."""
        step, kept = self.betas
        mean = moments["exp_avg"]
        weight.add_(mean.lerp(grad, 1 - step).sign_(), alpha=-lr)
        mean.lerp_(grad, 1 - kept)
