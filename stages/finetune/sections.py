"""Sections of a fine-tuning's config beside the paper's own fields: how weights are updated, and how images are varied.

Their defaults are the paper's protocol: SGD with momentum, no decay, a crop and a flip. No torch.
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vitpipe.stages.bounds import Concentration
from vitpipe.stages.images.config import AugmentSettings, MixupSettings, RandAugmentSettings
from vitpipe.stages.settings import Settings
from vitpipe.stages.training.optim.kinds import Kind, rule_of
from vitpipe.stages.training.optim.rule import Decay, OptimizerSettings


class TuningOptimizer(Settings):
    """The update rule of a fine-tuning, as `pretrain` has it. Peak rate and clipping are fields beside this section."""

    kind: Kind = "sgd"
    """sgd is the paper's (section 4.1); MAE, BEiT and DeiT-III fine-tune by adamw."""
    betas: tuple[Decay, Decay] | None = None
    """Decay rates of the moments of adamw, adam and lion; left out, the kind's own."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Decay of sgd's momentum; left out, 0.9 (section 4.1)."""
    weight_decay: float = Field(default=0.0, ge=0, le=10_000)
    """Each update shrinks what decays by learning rate x this, decoupled for every kind; none in the paper."""
    decays: Literal["kernels", "all"] = "kernels"
    """kernels: matrices alone; biases, norms, tokens and positions are spared, as by MAE, BEiT and DeiT. all: every
    parameter."""

    def rule(self, peak_lr: float) -> OptimizerSettings:
        """The rule with what the kind itself says in the place of what is left out."""
        stated = {"betas": self.betas, "momentum": self.momentum}
        given = {name: value for name, value in stated.items() if value is not None}
        own = {"kind": self.kind, "peak_lr": peak_lr, "weight_decay": self.weight_decay, "decays": self.decays}
        return rule_of(self.kind).model_validate(own | given)

    @model_validator(mode="after")
    def _has(self) -> "TuningOptimizer":
        for name in ("betas", "momentum"):
            if getattr(self, name) is not None and name not in rule_of(self.kind).uses:
                raise ValueError(f"{self.kind} has no {name}: leave it out")
        if self.decays == "all" and not self.weight_decay:
            raise ValueError("decays all has no meaning without weight_decay: state that too, or leave decays out")
        return self

    def __str__(self) -> str:
        """As a reader of a result wants it: `SGD with momentum 0.9`."""
        rule = self.rule(1.0)
        name = {"sgd": "SGD", "adamw": "AdamW", "adam": "Adam", "lion": "Lion"}.get(self.kind, self.kind)
        parts = [f"momentum {rule.momentum:g}"] if "momentum" in rule.uses else []
        parts += [f"betas {rule.betas[0]:g} and {rule.betas[1]:g}"] if "betas" in rule.uses else []
        parts += [f"weight decay {self.weight_decay:g}"] if self.weight_decay else []
        parts += ["of all parameters"] if self.weight_decay and self.decays == "all" else []
        return f"{name} with {', '.join(parts)}" if parts else name


class TuningAugment(Settings):
    """What varies a training image after its crop and its flip, as `pretrain` has it; by default nothing does."""

    randaugment: RandAugmentSettings | None = None
    """Random photometric and geometric operations."""
    mixup: Concentration | MixupSettings = 0.0
    """Alpha of the Beta distribution that blends images; 0 is off. Or a section that says who is blended with whom."""
    cutmix: Concentration = 0.0
    """Alpha of the Beta distribution for the share of a pasted box; 0 is off. With mixup too, one of both is drawn."""

    @field_validator("mixup")
    @classmethod
    def _short(cls, mixup: float | MixupSettings) -> float | MixupSettings:
        return AugmentSettings(mixup=mixup).mixup
