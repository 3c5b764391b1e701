"""AdamW (Loshchilov and Hutter 2019), without decay Adam (Kingma and Ba 2015); torch's own, or with a bf16 moment."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from vitpipe.stages.training.optim.rule import Dtype, Fused, Moments, OptimizerSettings

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-8


class AdamW(OptimizerSettings):
    """Steps of about the learning rate: the running mean of gradients by the root of that of their squares."""

    kind: Literal["adamw", "adam"] = "adamw"
    """adamw and adam are one rule here, as the paper means it."""
    uses: ClassVar[frozenset[str]] = frozenset({"betas"})
    usual_rates: ClassVar[tuple[float, float] | None] = (1e-6, 1e-2)
    """Table 3 has 2e-4 to 3e-3; whoever goes on from trained weights takes far less."""
    counts_updates: ClassVar[bool] = True

    @property
    def moments(self) -> Mapping[str, Dtype]:
        """The mean, which may be bf16 as big_vision's `mu_dtype`, and the mean square."""
        return {"exp_avg": self.state_dtype, "exp_avg_sq": "fp32"}

    @property
    def fused(self) -> Fused | None:
        """torch's AdamW, which keeps both moments in the type of the weights."""
        return Fused("AdamW", {"betas": self.betas, "eps": EPS}, decouples=True) if self.state_dtype == "fp32" else None

    def update(self, weight: "Tensor", grad: "Tensor", moments: Moments, lr: float, updates: int) -> None:
        """As torch's AdamW, with both bias corrections."""
        first, second = self.betas
        mean, square = moments["exp_avg"], moments["exp_avg_sq"]
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        size = (square / (1 - second**updates)).sqrt_().add_(EPS)
        weight.addcdiv_(mean, size, value=-lr / (1 - first**updates))
