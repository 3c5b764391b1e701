"""Small pictures laid out on one sheet, and a sheet as a data URI. Knows nothing of what the pictures show."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.keys import Floats

SHEET_PX = 920
"""Width of a mosaic: twice what the page shows, for dense screens."""
WIDE_PX = 1840
"""Width of a sheet over the whole page, likewise."""


def mosaic(tiles_NHWC: Pixels, columns: int) -> Pixels:
    """Lay tiles (N, side, side, 3) out in rows, each enlarged by a whole factor: RGBA, about SHEET_PX wide."""
    number, side = tiles_NHWC.shape[:2]
    gap = max(4, SHEET_PX // columns // 14)
    factor = max(1, (SHEET_PX // columns - gap) // side)
    pitch = side * factor + gap
    sheet = np.zeros((-(-number // columns) * pitch - gap, columns * pitch - gap, 4), np.uint8)
    for place, tile in enumerate(tiles_NHWC):
        y, x = place // columns * pitch, place % columns * pitch
        large = tile.repeat(factor, axis=0).repeat(factor, axis=1)
        sheet[y : y + side * factor, x : x + side * factor, :3] = large
        sheet[y : y + side * factor, x : x + side * factor, 3] = 255
    return sheet


def pairs(images: Sequence[Pixels], maps: Sequence[Floats], columns: int = 4) -> Pixels:
    """Lay out each image next to itself lit by its map (h, w), relative to the map's largest value.

    RGBA with transparent gaps; a map is enlarged smoothly, a small image pixel by pixel.
    """
    columns = min(columns, len(images))
    gap, between = 6, 36
    side = min(300, (WIDE_PX - (columns - 1) * between) // columns // 2 - gap)
    width = 2 * side + gap
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * (side + 24) - 24, columns * (width + between) - between, 4), np.uint8)
    for place, (image, shown) in enumerate(zip(images, maps, strict=True)):
        y, x = place // columns * (side + 24), place % columns * (width + between)
        whole = _enlarged(image, side)
        lit = whole * _light(shown, side)[..., None]
        for left, pixels in ((x, whole), (x + side + gap, lit.round().astype(np.uint8))):
            sheet[y : y + side, left : left + side, :3] = pixels
            sheet[y : y + side, left : left + side, 3] = 255
    return sheet


def png_uri(pixels: Pixels) -> str:
    """Encode a picture as a data URI without loss."""
    return _uri(pixels, "PNG", optimize=True)


def webp_uri(pixels: Pixels, photos: bool) -> str:
    """Encode a picture as a data URI: photographs lossy, drawings not."""
    return _uri(pixels, "WEBP", quality=82, lossless=not photos)


def _uri(pixels: Pixels, kind: str, **how: int | bool) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _enlarged(image: Pixels, side: int) -> Pixels:
    small = image.shape[0] * 2 <= side
    kernel = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize((side, side), kernel))


def _light(shown: Floats, side: int) -> Floats:
    relative = (shown / max(float(shown.max()), 1e-30)).astype(np.float32)
    large = Image.fromarray(relative, "F").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(large, dtype=np.float64).clip(0, 1)
