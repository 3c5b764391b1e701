"""Operations on the planes of an image, uint8 (3, H, W): by our extension, else by numpy, with the same pixels.

Arithmetic is TensorFlow's, in single precision and in its order. Knows no RandAugment, and no torch.
"""

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.extension import Bytes, Planes, loaded_extension

Floats = npt.NDArray[np.float32]
LEVELS = np.arange(256)
_TAPS = np.array([1, 1, 1, 1, 5, 1, 1, 1, 1], dtype=np.float32) / np.float32(13)
_GREY = np.array([0.2989, 0.587, 0.114], dtype=np.float32)


class NumpyPlanes:
    """The operations without our extension: several times slower."""

    def histograms(self, planes: Bytes) -> npt.NDArray[np.int64]:
        """Count the pixels (3, 256) of each level."""
        return np.stack([np.bincount(plane.ravel(), minlength=256) for plane in planes])

    def by_tables(self, planes: Bytes, tables: Bytes) -> None:
        """Replace each level of each plane by what its table (3, 256) says, in place."""
        for plane, table in zip(planes, tables, strict=True):
            plane[...] = table[plane]

    def nearest(self, planes: Bytes, matrix: Floats, fill: int) -> Bytes:
        """Take the pixel nearest to (m0 x + m1 y + m2, m3 x + m4 y + m5) for each (x, y), or `fill` outside."""
        height, width = planes.shape[1:]
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        from_x, from_y = (np.float64(m[0] * x + m[1] * y + m[2]) for m in (matrix[:3], matrix[3:]))
        inside = (from_x > -0.5) & (from_x < width - 0.5) & (from_y > -0.5) & (from_y < height - 0.5)
        rows, columns = (np.where(inside, place + 0.5, 0).astype(np.int64) for place in (from_y, from_x))
        return np.where(inside, planes[:, rows, columns], np.uint8(fill))

    def colour(self, planes: Bytes, factor: float) -> Bytes:
        """Blend an image with its grey one."""
        red, green, blue = planes * np.float32(1 / 255) * _GREY[:, None, None]
        grey = ((red + green + blue) * np.float32(255.5)).astype(np.uint8)
        return _blended(grey, planes, factor)

    def smooth(self, planes: Bytes, rounded: bool) -> Bytes:
        """Average each pixel, counted five times, with its neighbours; the border stays. What is not a whole level is
        rounded, or cut off."""
        _, height, width = planes.shape
        to = planes.copy()
        if min(height, width) < 3:
            return to
        mean_CHW = np.zeros((3, height - 2, width - 2), dtype=np.float32)
        for tap, weight in enumerate(_TAPS.tolist()):
            top, left = divmod(tap, 3)
            part = planes[:, top : top + height - 2, left : left + width - 2]
            mean_CHW = (weight * part.astype(np.float64) + mean_CHW).astype(np.float32)  # as fused: rounded once
        to[:, 1:-1, 1:-1] = np.rint(mean_CHW) if rounded else np.minimum(mean_CHW, 255)
        return to

    def blend(self, one: Bytes, other: Bytes, factor: float) -> Bytes:
        """Go from one image by `factor` towards the other, or past it; cut off to a level within 0 to 255."""
        return _blended(one, other, factor)


def planes_by() -> "NumpyPlanes | Planes":
    """Whoever does the operations here."""
    found = loaded_extension()
    return NumpyPlanes() if found is None else found.planes


def _blended(one: Bytes, other: Bytes, factor: float) -> Bytes:
    mixed = one + np.float32(factor) * (other.astype(np.float32) - one)
    return np.clip(mixed, 0, 255).astype(np.uint8)
