"""What an optimiser declares, once: its settings, the moments that it keeps of a weight, and its update.

The config, the optimiser's state, checkpoints and the plan's memory all read it here. Knows no optimiser by name and
imports no torch: an update is written on tensors' own methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from vitpipe.stages.bounds import Rate
from vitpipe.stages.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

Dtype = Literal["fp32", "bf16"]
BYTES: Mapping[Dtype, int] = {"fp32": 4, "bf16": 2}

TAKEN = frozenset({"weight", "average", "step"})
"""What a state and its checkpoints call other numbers: no moment may have such a name, for it would not be saved."""

Moments = Mapping[str, "Tensor"]
"""What is kept of one weight, by name."""

Decay = Annotated[float, Field(ge=0, lt=1)]
"""Share of a running average that a step keeps."""


@dataclass(frozen=True)
class Fused:
    """An optimiser of torch's own that makes the same update in one kernel."""

    name: str
    """Name of its class in `torch.optim`."""
    options: Mapping[str, Any]
    decouples: bool
    """Whether its weight decay is no part of the gradient; where it is, decay is applied before its step."""


class OptimizerSettings(Settings, ABC):
    """The update rule. Weight decay is decoupled, of sgd too (big_vision `optax.py`).

    Each kind is a class of its own, one file in `rules/`.
    """

    kind: str
    """Which rule."""
    peak_lr: Rate = 1e-3
    """Highest learning rate; Table 3: 1e-3 on ImageNet-21k, 3e-3 on ImageNet-1k."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of Adam's moments (section 4.1)."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Decay of sgd's momentum (section 4.1, fine-tuning)."""
    weight_decay: float = Field(default=0.1, ge=0, le=10_000)
    """Each update shrinks kernels by learning rate x this: the paper's 0.1 on JFT, 0.03 on ImageNet-21k, 0.3 on
    ImageNet-1k (Table 3). big_vision writes it already multiplied by the peak rate."""
    decays: Literal["kernels", "all"] = "kernels"
    """kernels: the matrices named `weight`; biases, norms, tokens and positions are spared, as by big_vision, MAE, BEiT
    and DeiT. all: every parameter decays, as in a plain loop in torch."""
    state_dtype: Dtype = "fp32"
    """Type that the first moment (sgd: the momentum) is kept in; bf16 as big_vision does. The second is fp32 always."""
    clip_norm: float | None = Field(default=1.0, gt=0, le=1e12)
    """Global gradient norm above which gradients are scaled down; null for none. The paper states 1 for ImageNet-1k
    and for fine-tuning, big_vision uses it everywhere."""

    uses: ClassVar[frozenset[str]] = frozenset()
    """Which of `betas` and `momentum` mean anything to this rule; settings of its own it adds as fields."""
    usual_rates: ClassVar[tuple[float, float] | None] = None
    """Lowest and highest peak learning rate that the rule is used with, up to some 2,000 images a step; a plan doubts
    others. None where nobody has said."""
    counts_updates: ClassVar[bool] = False
    """Whether the update depends on how many were made: the count is then a part of the state."""

    @property
    @abstractmethod
    def moments(self) -> Mapping[str, Dtype]:
        """What is kept of each weight between two steps: name, in checkpoints too, and type; all begin as zeros."""

    @abstractmethod
    def update(self, weight: "Tensor", grad: "Tensor", moments: Moments, lr: float, updates: int) -> None:
        """Change a weight and its moments in place, number by number, all of one shape and in the weight's own type.

        At ZeRO 1 to 3 they are flat, and parts of a parameter or of several: a rule that takes a norm or a row would
        be another one there. Weight decay was applied before.
        `updates` counts this one in, and is 0 without `counts_updates`. The plan allows for 8 bytes a weight of copies.
        """

    @property
    def fused(self) -> Fused | None:
        """What torch has for these very settings, used instead of `update`; None where it has nothing."""
        return None

    @property
    def moment_bytes(self) -> int:
        """Bytes of all moments of a weight."""
        return sum(BYTES[dtype] for dtype in self.moments.values())

    @property
    def update_bytes(self) -> int:
        """Bytes a weight of copies that pass while `update` runs: a bf16 moment as fp32, and one tensor, or two."""
        return 0 if self.fused else 8

    @model_validator(mode="after")
    def _fits(self) -> "OptimizerSettings":
        for name in {"betas", "momentum"} - self.uses:
            if getattr(self, name) != OptimizerSettings.model_fields[name].default:  # a record states defaults too
                raise ValueError(f"{self.kind} has no {name}: leave it out")
        if self.state_dtype != "fp32" and self.state_dtype not in self.moments.values():
            raise ValueError(f"{self.kind} keeps nothing in {self.state_dtype}: leave state_dtype out")
        if taken := TAKEN & self.moments.keys():
            raise TypeError(f"{self.kind} calls a moment {', '.join(sorted(taken))}: give it another name")
        return self
