"""Ridge regression on frozen features, as big_vision's `evaluators/fewshot_lsr.py` solves it, in double precision.

Knows no model and no images. N points, D features, K classes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

BIAS = 100.0
"""The constant column: so large that the bias it stands for is almost unregularised."""
MIN_STD = 1e-5
"""Added to every standard deviation, so that a feature which never varies divides by something."""


@dataclass(frozen=True)
class Ridge:
    """One support set, factorised once; every penalty is then a product of small matrices."""

    mean_D: Floats
    std_D: Floats
    eigenvalues_E: Floats
    left_DE: Floats
    """D + 1 rows: the last belongs to the constant column."""
    right_EK: Floats

    @classmethod
    def fit(cls, features_ND: npt.NDArray[np.floating], labels_N: Labels, num_classes: int) -> "Ridge":
        """Whiten with the support's own mean and spread, set targets to +1 and -1, factorise.

        With N >= D + 1 the D + 1 square XᵀX is factorised, else the N square XXᵀ; both give the same solution.
        """
        raw_ND: Floats = np.asarray(features_ND, dtype=np.float64)
        mean_D, std_D = raw_ND.mean(axis=0), raw_ND.std(axis=0) + MIN_STD
        x_ND = _whiten(raw_ND, mean_D, std_D)
        y_NK = 2.0 * np.eye(num_classes)[labels_N] - 1.0
        if x_ND.shape[0] >= x_ND.shape[1]:
            eigenvalues, q = np.linalg.eigh(x_ND.T @ x_ND)
            return cls(mean_D, std_D, eigenvalues, q, q.T @ (x_ND.T @ y_NK))
        eigenvalues, q = np.linalg.eigh(x_ND @ x_ND.T)
        return cls(mean_D, std_D, eigenvalues, x_ND.T @ q, q.T @ y_NK)

    def weights(self, l2: float) -> Floats:
        """The solution for one penalty, (D + 1, K): (XᵀX + l2 I)⁻¹ XᵀY."""
        return (self.left_DE / (self.eigenvalues_E + l2)) @ self.right_EK

    def predict(self, features_ND: npt.NDArray[np.floating], l2: float) -> Labels:
        """The class of the highest output for each row, (N,)."""
        whitened_ND = _whiten(np.asarray(features_ND, dtype=np.float64), self.mean_D, self.std_D)
        return np.asarray((whitened_ND @ self.weights(l2)).argmax(axis=1), dtype=np.int64)


def _whiten(x_ND: Floats, mean_D: Floats, std_D: Floats) -> Floats:
    return np.pad((x_ND - mean_D) / std_D, ((0, 0), (0, 1)), constant_values=BIAS)
