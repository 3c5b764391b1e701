"""Images like photographs by their statistics, and the copies that a near-duplicate search must find."""

from collections.abc import Iterator

import numpy as np
from photos import encoded
from PIL import Image, ImageEnhance


def scene(number: int, side: int = 160) -> Image.Image:
    """Discs that hide each other (dead leaves: Lee, Mumford, Huang 2001) under 1/f noise; no two numbers alike."""
    rng = np.random.default_rng(number)
    image = np.empty((side, side, 3))
    image[:] = rng.uniform(30, 220, 3)
    y, x = np.mgrid[:side, :side]
    for radius in np.sort(1 / rng.uniform(1 / 60, 1 / 4, 50))[::-1]:
        across, down = rng.uniform(0, side, 2)
        inside = (x - across) ** 2 + (y - down) ** 2 < radius**2
        image[inside] = 0.8 * rng.uniform(10, 245, 3) + 0.2 * image[inside]
    frequency = np.fft.fftfreq(side)
    falloff = np.hypot(frequency[:, None], frequency[None])
    falloff[0, 0] = 1
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / falloff**1.2).real
    return Image.fromarray(np.clip(image + 15 * (noise / noise.std())[:, :, None], 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    return encoded(image, "JPEG", quality=quality)


def copies(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Resized to three quarters, compressed anew, a tenth brighter, and trimmed by 2 % at the edges."""
    wide, high = image.size
    trim = round(0.01 * wide)  # at each side: 2 % of the width and of the height
    yield "resized", jpeg(image.resize((round(0.75 * wide), round(0.75 * high)), Image.Resampling.BICUBIC))
    yield "recompressed", jpeg(image, quality=60)
    yield "brighter", jpeg(ImageEnhance.Brightness(image).enhance(1.1))
    yield "cropped", jpeg(image.crop((trim, trim, wide - trim, high - trim)))
    yield "corner", jpeg(image.crop((2 * trim, 2 * trim, wide, high)))
