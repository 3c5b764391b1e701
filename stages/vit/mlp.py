"""The dense part of a block: two layers with GELU between, as in the paper, or gated ones (SwiGLU); and the scale of a
branch. Shapes: B images, T tokens, D width, F size of the hidden layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.depth import dropout


class QuickGelu(nn.Module):
    """OpenAI's approximation of the GELU, x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each number."""
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two dense layers with GELU between, dropout after each (section B.1)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.fc1 = nn.Linear(settings.sizes.width, settings.sizes.mlp)
        self.act = _gelu(settings)
        self.drop1 = dropout(settings.dropout)
        self.norm = nn.LayerNorm(settings.sizes.mlp, eps=settings.norm_eps) if settings.mlp_norm else nn.Identity()
        self.fc2 = nn.Linear(settings.sizes.mlp, settings.sizes.width)
        self.drop2 = dropout(settings.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each token (B, T, D) by itself."""
        y_BTD: Tensor = self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x_BTD))))))
        return y_BTD


class GatedMlp(nn.Module):
    """SwiGLU (Shazeer 2020): SiLU of one dense layer times another, both rows of `fc1`, the gate's first."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, hidden = settings.sizes.width, settings.sizes.mlp
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.drop1 = dropout(settings.dropout)
        self.norm = nn.LayerNorm(hidden, eps=settings.norm_eps) if settings.mlp_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, width)
        self.drop2 = dropout(settings.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each token (B, T, D) by itself."""
        gate_BTF, value_BTF = self.fc1(x_BTD).chunk(2, dim=-1)
        y_BTD: Tensor = self.drop2(self.fc2(self.norm(self.drop1(F.silu(gate_BTF) * value_BTF))))
        return y_BTD


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Scale a branch (B, T, D)."""
        return x_BTD * self.gamma


def mlp_of(settings: ModelSettings) -> Mlp | GatedMlp:
    """Make the kind that the settings name."""
    return GatedMlp(settings) if settings.mlp_kind == "swiglu" else Mlp(settings)


def layer_scale(settings: ModelSettings) -> nn.Module:
    """Make the scale of a branch, or nothing where the model has none."""
    return nn.Identity() if settings.layer_scale is None else LayerScale(settings.sizes.width)


def _gelu(settings: ModelSettings) -> nn.Module:
    if settings.gelu == "quick":
        return QuickGelu()
    return nn.GELU(approximate="tanh" if settings.gelu == "tanh" else "none")
