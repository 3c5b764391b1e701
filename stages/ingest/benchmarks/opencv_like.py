"""What OpenCV does to 8-bit pixels, in numpy and scipy: TensorFlow Datasets prepared two of VTAB's data sets with it.

Resizing and blurring are within one grey level of OpenCV's own, which rounds its weights to 11 bits.
"""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def resize_by(image: Pixels, factor: float) -> Pixels:
    """cv2.resize(image, None, fx=factor, fy=factor): bilinear between the four nearest, without antialias."""
    size = [max(1, round(side * factor)) for side in image.shape[:2]]
    rows, columns = (_between(before, after, factor) for before, after in zip(image.shape[:2], size, strict=True))
    low, high, part = rows
    above, below = image[low].astype(np.float32), image[high].astype(np.float32)
    tall = above + (below - above) * part[:, None, None]
    low, high, part = columns
    return np.rint(tall[:, low] + (tall[:, high] - tall[:, low]) * part[None, :, None]).astype(np.uint8)


def _between(
    before: int, after: int, factor: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The two old pixels that each new one along an axis lies between, and how far it is from the first."""
    place = np.clip((np.arange(after) + 0.5) / factor - 0.5, 0, before - 1)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, before - 1), (place - low).astype(np.float32)


def less_local_average(image: Pixels, sigma: float) -> Pixels:
    """cv2.addWeighted(image, 4, cv2.GaussianBlur(image, (0, 0), sigma), -4, 128)."""
    from scipy.ndimage import gaussian_filter

    radius = (round(sigma * 3 * 2 + 1) | 1) // 2
    blurred = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0))
    sharp: Pixels = np.clip(4 * image.astype(np.float32) - 4 * np.rint(blurred) + 128, 0, 255).astype(np.uint8)
    return sharp


def disc(height: int, width: int, radius: int) -> npt.NDArray[np.bool_]:
    """A filled circle around (width // 2, height // 2)."""
    y, x = np.ogrid[:height, :width]
    return np.asarray((y - height // 2) ** 2 + (x - width // 2) ** 2 <= radius**2)
