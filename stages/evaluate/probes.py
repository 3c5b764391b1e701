"""Classifiers on frozen features other than the ridge: logistic regression, and a vote of the nearest neighbours.

Knows no model: features are arrays, and the caller chooses the device. N points, M test points, D features, K classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

MAX_ITERATIONS = 500
"""Iterations of L-BFGS at most; it ends by itself when the loss stands still."""
DEV_SHARE = 5
"""One training image of so many chooses the penalty."""
MIN_STD = 1e-6
_ROWS = 1024


def nearest(
    train_ND: Floats,
    train_labels_N: Labels,
    test_MD: Floats,
    num_classes: int,
    neighbours: int,
    temperature: float,
    device: torch.device,
) -> Labels:
    """The class (M,) with the greatest vote of the nearest by cosine, each worth exp(cosine / temperature).

    As DINO's `eval_knn.py`; with fewer training images than neighbours all of them vote.
    """
    train_ND_unit = F.normalize(torch.as_tensor(train_ND, dtype=torch.float32, device=device), dim=1)
    hot_NK = F.one_hot(torch.as_tensor(train_labels_N, device=device), num_classes).float()
    found = []
    for start in range(0, len(test_MD), _ROWS):
        rows_BD = torch.as_tensor(test_MD[start : start + _ROWS], dtype=torch.float32, device=device)
        cosine_BN = F.normalize(rows_BD, dim=1) @ train_ND_unit.T
        near_Bk, which_Bk = cosine_BN.topk(min(neighbours, len(train_ND_unit)), dim=1)
        votes_BK = torch.einsum("bk,bkc->bc", (near_Bk / temperature).exp(), hot_NK[which_Bk])
        found.append(votes_BK.argmax(dim=1).cpu())
    return np.asarray(torch.cat(found).numpy(), dtype=np.int64)


def linear(
    train_ND: Floats, train_labels_N: Labels, test_MD: Floats, num_classes: int, l2: float, device: torch.device
) -> Labels:
    """The class (M,) by logistic regression on whitened features with the penalty `l2`."""
    x_ND, mean_D, std_D = _whitened(train_ND, device)
    weight_KD, bias_K = fit_logistic(x_ND, torch.as_tensor(train_labels_N, device=device), num_classes, l2)
    test_MD_white = (torch.as_tensor(test_MD, dtype=torch.float32, device=device) - mean_D) / std_D
    named_M = F.linear(test_MD_white, weight_KD, bias_K).argmax(dim=1)
    return np.asarray(named_M.cpu().numpy(), dtype=np.int64)


def choose_l2(
    train_ND: Floats, train_labels_N: Labels, num_classes: int, sweep: Sequence[float], seed: int, device: torch.device
) -> float:
    """Choose the penalty whose fit on the rest names most held-out images right; the strongest of equals.

    Where no image is held out, the middle one of the sweep.
    """
    held_out_M = held_out(train_labels_N, seed)
    if len(sweep) == 1 or not len(held_out_M):
        return sorted(sweep)[len(sweep) // 2]
    x_ND, _, _ = _whitened(train_ND, device)
    labels_N = torch.as_tensor(train_labels_N, device=device)
    keep_N = torch.ones(len(labels_N), dtype=torch.bool, device=device)
    keep_N[torch.as_tensor(held_out_M, device=device)] = False
    right = {}
    for l2 in sweep:
        weight_KD, bias_K = fit_logistic(x_ND[keep_N], labels_N[keep_N], num_classes, l2)
        named_M = F.linear(x_ND[~keep_N], weight_KD, bias_K).argmax(dim=1)
        right[l2] = int((named_M == labels_N[~keep_N]).sum())
    return max(sweep, key=lambda l2: (right[l2], l2))


def held_out(labels_N: Labels, seed: int) -> Labels:
    """Rows that choose: of every class one image in five, drawn by seed. None of a class with a single image."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        chosen.append(rows[: max(len(rows) // DEV_SHARE, min(1, len(rows) - 1))])
    return np.sort(np.concatenate(chosen))


def fit_logistic(x_ND: Tensor, labels_N: Tensor, num_classes: int, l2: float) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and bias (K,) of least mean cross-entropy + l2/2 |weights|^2, by L-BFGS from zero.

    scikit-learn's LogisticRegression with C = 1 / (N l2) has the same minimum.
    """
    weight_KD = torch.zeros(num_classes, x_ND.shape[1], device=x_ND.device, requires_grad=True)
    bias_K = torch.zeros(num_classes, device=x_ND.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight_KD, bias_K],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(F.linear(x_ND, weight_KD, bias_K), labels_N) + l2 / 2 * weight_KD.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight_KD.detach(), bias_K.detach()


def _whitened(train_ND: Floats, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Features of mean 0 and spread 1, and the mean (D,) and spread (D,) they had."""
    raw_ND = torch.as_tensor(train_ND, dtype=torch.float32, device=device)
    mean_D, std_D = raw_ND.mean(dim=0), raw_ND.std(dim=0, correction=0) + MIN_STD
    return (raw_ND - mean_D) / std_D, mean_D, std_D
