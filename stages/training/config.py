"""What a training run is made of, in a config: the objective and the optimiser. Knows no stage and no torch."""

from typing import Literal

from pydantic import Field

from stages.settings import Settings


class ObjectiveSettings(Settings):
    """What the model is asked to predict, and how a wrong answer is counted."""

    kind: Literal["softmax", "sigmoid"] = "softmax"
    """softmax cross-entropy, or sigmoid cross-entropy summed over the classes (big_vision's ImageNet-21k recipe)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target mass spread evenly over all classes."""
    head_bias: float | None = None
    """Initial bias of the head; by default 0 for softmax and -10 for sigmoid (big_vision)."""

    @property
    def initial_head_bias(self) -> float:
        if self.head_bias is not None:
            return self.head_bias
        return -10.0 if self.kind == "sigmoid" else 0.0


class OptimizerSettings(Settings):
    """The update rule. Weight decay is decoupled and touches kernels only (big_vision `optax.py`)."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw and adam are one rule here, as the paper means it; sgd has momentum."""
    peak_lr: float = Field(default=1e-3, gt=0)
    """Highest learning rate; Table 3: 1e-3 on ImageNet-21k, 3e-3 on ImageNet-1k."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's moments (section 4.1)."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd (section 4.1, fine-tuning)."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Each update shrinks kernels by learning rate x this: the paper's 0.1 on JFT, 0.03 on ImageNet-21k, 0.3 on
    ImageNet-1k (Table 3). big_vision writes it already multiplied by the peak rate."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Global gradient norm above which gradients are scaled down; null for none. The paper states 1 for ImageNet-1k
    and for fine-tuning, big_vision uses it everywhere."""
