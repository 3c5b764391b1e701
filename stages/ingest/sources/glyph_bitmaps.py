"""One image of a glyph, made as the digits of UCI's optdigits were: a warped bitmap that fills its frame, in blocks.

Every draw is keyed by (seed, class, number). A bitmap four times as large as the image, black and white, is summed in
blocks of 4 x 4, which gives 17 levels of grey; there is no noise, and the contrast is full.
"""

import math
from itertools import count, product

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitpipe.stages.images.keys import key
from vitpipe.stages.ingest.sources.glyph_classes import Glyph
from vitpipe.stages.ingest.sources.glyph_drawing import Greys, stamp

BLOCK_PX = 4
"""Side of the block of the bitmap that becomes one pixel, as in optdigits: 32 x 32 become 8 x 8."""
ROTATION_DEGREES = 12.0
SHEAR = 0.35
WIDTH = (0.42, 0.75)
"""Width of a character, share of its frame, which it fills from top to bottom as the digits do: this stretches it."""
CELLS = 4
"""The elastic warp moves the corners of a grid of so many cells a side; what lies between follows bilinearly."""
WARP = 0.09
"""Standard deviation of a corner's move, share of the character's frame."""
INKED = (0.2, 0.34)
"""Strokes are widened until this share of the frame is ink; in the digits it is 0.305 with a deviation of 0.034."""
_INK = 128


def draw_bitmap(glyph: Glyph, image_px: int, seed: int, number: int) -> Greys:
    """Draw one image of a glyph, (image_px, image_px) greys."""
    random = np.random.Philox(key=key("glyph", seed, glyph.codepoint, number))
    corners = (CELLS + 1) ** 2
    draws = (random.random_raw(5 + 8 * corners) >> np.uint64(11)) * 2.0**-53
    font = glyph.fonts[int(draws[0] * len(glyph.fonts))]
    side = BLOCK_PX * image_px
    moves = (draws[5:].reshape(4, 2, corners).sum(axis=0) - 2) * math.sqrt(3) * WARP  # four uniforms: nearly normal
    ink = _warped(stamp(font, glyph.codepoint, side), draws[1:3].tolist(), moves)
    bitmap = _fitted(ink, round(_between(WIDTH, draws[3]) * side), side)
    _widen(bitmap, _between(INKED, draws[4]) * bitmap.size)
    blocks = bitmap.reshape(image_px, BLOCK_PX, image_px, BLOCK_PX)
    greys: Greys = np.rint(blocks.sum(axis=(1, 3)) * (255 / BLOCK_PX**2)).astype(np.uint8)
    return greys


def _warped(character: Image.Image, draws: list[float], moves: npt.NDArray[np.float64]) -> Image.Image:
    """The character rotated, sheared and warped on a canvas half as large again."""
    size = character.width
    canvas = size * 3 // 2
    angle = math.radians((2 * draws[0] - 1) * ROTATION_DEGREES)
    slant = (2 * draws[1] - 1) * SHEAR
    cos, sin = math.cos(angle), math.sin(angle)
    lines = np.linspace(-0.5, 0.5, CELLS + 1) * canvas
    y_CC, x_CC = np.meshgrid(lines, lines, indexing="ij")
    x_CC, y_CC = cos * x_CC + sin * y_CC, cos * y_CC - sin * x_CC
    x_CC = x_CC + slant * y_CC + size / 2 + moves[0].reshape(x_CC.shape) * size
    y_CC = y_CC + size / 2 + moves[1].reshape(y_CC.shape) * size
    edges = [round(place) for place in np.linspace(0, canvas, CELLS + 1)]
    mesh = []
    for row, column in product(range(CELLS), repeat=2):
        box = (edges[column], edges[row], edges[column + 1], edges[row + 1])
        around = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
        mesh.append((box, tuple(float(axis[at]) for at in around for axis in (x_CC, y_CC))))
    return character.transform((canvas, canvas), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _fitted(ink: Image.Image, width: int, side: int) -> npt.NDArray[np.bool_]:
    """The character as a bitmap (side, side) which it fills from top to bottom, in the middle, `width` wide."""
    box = ink.point(lambda grey: 255 * (grey >= _INK)).getbbox() or ink.getbbox() or (0, 0, *ink.size)
    sized = np.asarray(ink.resize((width, side), Image.Resampling.BILINEAR, box))
    bitmap = np.zeros((side, side), dtype=np.bool_)
    left = (side - width) // 2
    bitmap[:, left : left + width] = sized >= min(_INK, int(sized.max()) // 2 + 1)  # the thinnest are never half ink
    return bitmap


def _widen(bitmap: npt.NDArray[np.bool_], wanted: float) -> None:
    """Dilate in place, a pixel to the right and down or to the left and up in turn, until so many pixels are ink."""
    for step in count():
        if bitmap.sum() >= wanted:
            return
        for lines in (bitmap, bitmap.T):
            grown, by = (lines[1:], lines[:-1]) if step % 2 == 0 else (lines[:-1], lines[1:])
            grown |= by.copy()


def _between(limits: tuple[float, float], draw: float) -> float:
    return limits[0] + draw * (limits[1] - limits[0])
