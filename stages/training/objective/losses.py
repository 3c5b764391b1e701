"""Losses per image. B images, K classes; labels are class numbers (B,) or target shares (B, K).

Knows no batch mean: the engine divides by the global batch, so that every cut into micro-batches means the same.
"""

from collections.abc import Callable
from functools import partial
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.objective.autoencoder import rebuilt_loss
from vitpipe.stages.training.objective.masked_patches import colour_loss, pixel_loss

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs in any float type, labels) -> fp32 loss (B,). Outputs are logits (B, K), or what the model
of an objective without labels says."""


def loss_fn(objective: ObjectiveSettings) -> Loss:
    """The loss a config names."""
    smoothing = objective.label_smoothing
    match objective.kind:
        case "masked_patch":
            return pixel_loss if objective.patch_target == "l2" else colour_loss
        case "mae":
            return partial(rebuilt_loss, normalise=objective.norm_pixels)
        case "sigmoid":
            return partial(sigmoid, smoothing=smoothing)
        case "softmax":
            return partial(softmax, smoothing=smoothing)
        case unknown:
            assert_never(unknown)


def softmax(logits_BK: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy (B,) of the softmax."""
    return F.cross_entropy(logits_BK.float(), labels, reduction="none", label_smoothing=smoothing)


def sigmoid(logits_BK: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy summed over the classes (B,), as big_vision's `sigmoid_xent`."""
    num_classes = logits_BK.shape[1]
    targets_BK = labels if labels.is_floating_point() else F.one_hot(labels, num_classes).to(torch.float32)
    if smoothing:
        targets_BK = targets_BK * (1 - smoothing) + smoothing / num_classes
    return F.binary_cross_entropy_with_logits(logits_BK.float(), targets_BK, reduction="none").sum(dim=1)
