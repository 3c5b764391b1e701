"""One image of a glyph, made as the digits of UCI's optdigits were: a warped bitmap that fills its frame, in blocks.

Every draw is keyed by (seed, class, number). A bitmap four times as large as the image, black and white, is summed in
blocks of 4 x 4, which gives 17 levels of grey; there is no noise, and the contrast is full.
"""

import math
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vitpipe.stages.images.keys import key
from vitpipe.stages.ingest.sources.glyph_classes import Glyph
from vitpipe.stages.ingest.sources.glyph_drawing import Greys, stamp

BLOCK_PX = 4
"""Side of the block of the bitmap that becomes one pixel, as in optdigits: 32 x 32 become 8 x 8."""
ROTATION_DEGREES = 12.0
SHEAR = 0.35
STRETCH = (0.65, 1.5)
"""Height by width, beside the character's own."""
CELLS = 4
"""The elastic warp moves the corners of a grid of so many cells a side; what lies between follows bilinearly."""
WARP = 0.055
"""Standard deviation of a corner's move, share of the character's frame."""
STROKES = 3
"""As many widths of a stroke: the font's, and wider by 2, by 2 and 4, ... pixels of a bitmap of 64 px, by dilation."""
_INK = 128


def draw_bitmap(glyph: Glyph, image_px: int, seed: int, number: int) -> Greys:
    """Draw one image of a glyph, (image_px, image_px) greys."""
    random = np.random.Philox(key=key("glyph", seed, glyph.codepoint, number))
    corners = (CELLS + 1) ** 2
    draws = (random.random_raw(5 + 8 * corners) >> np.uint64(11)) * 2.0**-53
    font = glyph.fonts[int(draws[0] * len(glyph.fonts))]
    side = BLOCK_PX * image_px
    moves = (draws[5:].reshape(4, 2, corners).sum(axis=0) - 2) * math.sqrt(3) * WARP  # four uniforms: nearly normal
    ink = _warped(stamp(font, glyph.codepoint, side), draws[1:4].tolist(), moves)
    stroke = 1 + 2 * round(int(draws[4] * STROKES) * side / 64)
    bitmap = _fitted(ink, side - stroke + 1, side).filter(ImageFilter.MaxFilter(stroke))
    blocks = np.asarray(bitmap, dtype=np.int64).reshape(image_px, BLOCK_PX, image_px, BLOCK_PX) // 255
    greys: Greys = np.rint(blocks.sum(axis=(1, 3)) * (255 / BLOCK_PX**2)).astype(np.uint8)
    return greys


def _warped(character: Image.Image, draws: list[float], moves: npt.NDArray[np.float64]) -> Image.Image:
    """The character rotated, sheared, stretched and warped on a canvas half as large again."""
    size = character.width
    canvas = size * 3 // 2
    angle = math.radians((2 * draws[0] - 1) * ROTATION_DEGREES)
    slant = (2 * draws[1] - 1) * SHEAR
    stretch = math.exp(math.log(STRETCH[0]) + draws[2] * math.log(STRETCH[1] / STRETCH[0]))
    wide, tall = math.sqrt(1 / max(stretch, 1)), math.sqrt(min(stretch, 1))
    cos, sin = math.cos(angle), math.sin(angle)
    lines = np.linspace(-0.5, 0.5, CELLS + 1) * canvas
    y_CC, x_CC = np.meshgrid(lines, lines, indexing="ij")
    x_CC, y_CC = cos * x_CC + sin * y_CC, cos * y_CC - sin * x_CC
    x_CC = (x_CC + slant * y_CC) / wide + size / 2 + moves[0].reshape(x_CC.shape) * size
    y_CC = y_CC / tall + size / 2 + moves[1].reshape(y_CC.shape) * size
    edges = [round(place) for place in np.linspace(0, canvas, CELLS + 1)]
    mesh = []
    for row, column in product(range(CELLS), repeat=2):
        box = (edges[column], edges[row], edges[column + 1], edges[row + 1])
        around = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
        mesh.append((box, tuple(float(axis[at]) for at in around for axis in (x_CC, y_CC))))
    return character.transform((canvas, canvas), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _fitted(ink: Image.Image, wanted: int, side: int) -> Image.Image:
    """Black and white, the larger side of the character `wanted` pixels, in the middle of a square of `side`."""
    middle = Image.new("L", (side, side))
    box = ink.point(lambda grey: 255 * (grey >= _INK)).getbbox()
    if box is None:  # strokes too thin to reach half ink anywhere
        box = ink.getbbox() or (0, 0, *ink.size)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = wanted / max(width, height)
    sized = ink.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR, box)
    threshold = min(_INK, int(np.asarray(sized).max()) // 2 + 1)
    bitmap = sized.point(lambda grey: 255 * (grey >= threshold))
    middle.paste(bitmap, ((side - bitmap.width) // 2, (side - bitmap.height) // 2))
    return middle
