"""Randomness as a pure function of names and positions: the same on any machine, thread, rank and numpy version.

Knows nothing of images. Philox's raw output and SplitMix64 are fixed algorithms; numpy's distributions are not.
"""

import hashlib
import json
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64 (Steele, Lea, Flood 2014): increment and both multipliers
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@lru_cache(maxsize=4096, typed=True)
def key(*parts: str | int) -> int:
    """Hash the name of a draw to an unsigned 128-bit number."""
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def permutation(count: int, *parts: str | int) -> Ints:
    """Draw a permutation of `count` numbers, named by `parts`."""
    return np.random.Philox(key=key(*parts)).random_raw(count).argsort(kind="stable")


def uniforms(positions_B: Ints, draws: int, *parts: str | int) -> Floats:
    """Draw (B, draws) numbers in [0, 1): row b depends on `parts` and `positions_B[b]` alone."""
    root = np.uint64(key(*parts) & 0xFFFFFFFFFFFFFFFF)
    state_B = _mixed(root + scattered(positions_B))
    steps_D = np.arange(1, draws + 1, dtype=np.uint64) * _GAMMA
    return (_mixed(state_B[:, None] + steps_D) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def scattered(positions_B: Ints) -> npt.NDArray[np.uint64]:
    """A number (B,) for each position that tells nothing of it: SplitMix64 at that place of its sequence."""
    return _mixed(positions_B.astype(np.uint64) * _GAMMA + _GAMMA)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
