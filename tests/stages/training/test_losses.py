"""Losses against their formulas, written out."""

import pytest
import torch

from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.objective.losses import loss_fn

LOGITS_BK = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
LABELS_B = torch.tensor([0, 2])


def loss(kind: str, labels: torch.Tensor, smoothing: float = 0.0, logits: torch.Tensor = LOGITS_BK) -> torch.Tensor:
    return loss_fn(ObjectiveSettings.model_validate({"kind": kind, "label_smoothing": smoothing}))(logits, labels)


def one_hot(smoothing: float = 0.0) -> torch.Tensor:
    return torch.eye(3)[LABELS_B] * (1 - smoothing) + smoothing / 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_the_cross_entropy_of_each_image(smoothing: float) -> None:
    wanted = -(one_hot(smoothing) * LOGITS_BK.log_softmax(1)).sum(1)
    torch.testing.assert_close(loss("softmax", LABELS_B, smoothing), wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_is_summed_over_classes(smoothing: float) -> None:
    p, y = LOGITS_BK.sigmoid(), one_hot(smoothing)
    wanted = -(y * p.log() + (1 - y) * (1 - p).log()).sum(1)
    torch.testing.assert_close(loss("sigmoid", LABELS_B, smoothing), wanted)


def test_several_classes_an_image_count_each_under_sigmoid() -> None:
    several = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    p = LOGITS_BK.sigmoid()
    wanted = torch.stack([-(p[0, 0].log() + p[0, 1].log() + (1 - p[0, 2]).log()), -(1 - p[1]).log().sum()])
    torch.testing.assert_close(loss("sigmoid", several), wanted)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_shares_of_one_class_are_that_class(kind: str) -> None:
    torch.testing.assert_close(loss(kind, one_hot()), loss(kind, LABELS_B))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_bf16_logits_give_an_fp32_loss(kind: str) -> None:
    found = loss(kind, LABELS_B, logits=LOGITS_BK.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(kind, LABELS_B))  # these logits are exact in bf16
