"""The position table that is computed, not learned. No torch, so that weights can be written without it."""

import numpy as np
from numpy.typing import NDArray


def sincos_2d(grid: int, width: int, temperature: float = 10_000.0) -> NDArray[np.float32]:
    """Compute the table (N, D) of MoCo v3 and big_vision: sin x, cos x, sin y, cos y, a quarter of the width each."""
    quarter = width // 4
    omega = 1 / temperature ** (np.arange(quarter, dtype=np.float64) / (quarter - 1))
    axis = np.arange(grid, dtype=np.float64)
    y_N, x_N = (line.ravel() for line in np.meshgrid(axis, axis, indexing="ij"))
    x_Nq, y_Nq = x_N[:, None] * omega, y_N[:, None] * omega
    table_ND = np.concatenate([np.sin(x_Nq), np.cos(x_Nq), np.sin(y_Nq), np.cos(y_Nq)], axis=1)
    return table_ND.astype(np.float32)
