"""One image of a glyph, its every draw of style, place and noise keyed by (seed, class, number); and its PNG."""

import math
import struct
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vitpipe.stages.images.keys import key
from vitpipe.stages.ingest.sources.glyph_classes import Glyph, font_path

Greys = npt.NDArray[np.uint8]

OVERSAMPLING = 2
"""Drawn so many times larger, then averaged."""
SIZE = (0.55, 0.92)
"""Larger side of a character, share of the image."""
STRETCH = (0.8, 1.25)
ROTATION_DEGREES = 18.0
SHEAR = 0.25
CONTRAST = (0.35, 1.0)
"""Distance between ink and paper, share of the grey scale."""
INVERTED = 0.0
"""Share of images with dark ink on lighter paper."""
BLUR_PX = 0.045
"""Largest radius of the blur, share of the image; half of the images have none."""
NOISE = 0.08
"""Largest standard deviation of the noise, share of the grey scale."""


def draw(glyph: Glyph, image_px: int, seed: int, number: int) -> Greys:
    """Draw one image of a glyph, (image_px, image_px) greys."""
    random = np.random.Philox(key=key("glyph", seed, glyph.codepoint, number))
    draws = iter(((random.random_raw(16) >> np.uint64(11)) * 2.0**-53).tolist())
    font = glyph.fonts[int(next(draws) * len(glyph.fonts))]
    side = OVERSAMPLING * image_px
    character = stamp(font, glyph.codepoint, side)
    mapping = _mapping([next(draws) for _ in range(7)], character.width, side)
    ink = character.transform((side, side), Image.Transform.AFFINE, mapping, Image.Resampling.BILINEAR)
    ink = ink.reduce(OVERSAMPLING)
    blur = 2 * next(draws) - 1
    if blur > 0:
        ink = ink.filter(ImageFilter.GaussianBlur(blur * BLUR_PX * image_px))
    contrast = _between(CONTRAST, next(draws))
    paper = next(draws) * (1 - contrast)
    shade = paper + contrast * (np.asarray(ink, dtype=np.float32) * np.float32(1 / 255))
    if next(draws) < INVERTED:
        shade = 1 - shade
    shade += NOISE * next(draws) * _normal(random, image_px)
    grey: Greys = np.clip(np.rint(shade * 255), 0, 255).astype(np.uint8)
    return grey


@lru_cache(maxsize=20_000)
def stamp(font: str, codepoint: int, side: int) -> Image.Image:
    """The character alone, white on black, its larger side `side` pixels, in the middle of a square."""
    char = chr(codepoint)
    left, top, right, bottom = _font(font, side).getbbox(char)
    size = max(1, round(side * side / max(right - left, bottom - top, 1)))
    sized = _font(font, min(size, 4 * side))
    left, top, right, bottom = sized.getbbox(char)
    middle = Image.new("L", (side + 4, side + 4))
    place = ((middle.width - (right - left)) / 2 - left, (middle.height - (bottom - top)) / 2 - top)
    ImageDraw.Draw(middle).text((round(place[0]), round(place[1])), char, fill=255, font=sized)
    return middle


@lru_cache(maxsize=1000)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(name), size, layout_engine=ImageFont.Layout.BASIC)


def _mapping(draws: list[float], stamp_side: int, side: int) -> tuple[float, ...]:
    """Six numbers that take a place in the image to a place in the stamp: the inverse of what is done to it."""
    size, stretch, rotation, shear, right, down, _ = draws
    angle = math.radians((2 * rotation - 1) * ROTATION_DEGREES)
    wide = _between(SIZE, size)
    tall = wide * math.exp(math.log(STRETCH[0]) + stretch * math.log(STRETCH[1] / STRETCH[0]))
    slant = (2 * shear - 1) * SHEAR
    tall = min(tall, SIZE[1])
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos * wide, cos * slant * wide - sin * tall  # rotation x (shear and sizes), row by row
    d, e = sin * wide, sin * slant * wide + cos * tall
    det = a * e - b * d
    a, b, d, e = e / det, -b / det, -d / det, a / det
    room = (1 - wide) / 2 * side
    x, y = side / 2 + (2 * right - 1) * room, side / 2 + (2 * down - 1) * room
    return a, b, stamp_side / 2 - a * x - b * y, d, e, stamp_side / 2 - d * x - e * y


def _between(limits: tuple[float, float], draw: float) -> float:
    return limits[0] + draw * (limits[1] - limits[0])


def _normal(random: np.random.Philox, side: int) -> npt.NDArray[np.float32]:
    """Nearly normal noise (side, side): four random bytes added, brought to mean 0 and deviation 1."""
    raw = random.random_raw(-(-side * side * 4 // 8)).view(np.uint8)[: side * side * 4]
    total = raw.reshape(4, side, side).sum(axis=0, dtype=np.float32)
    noise: npt.NDArray[np.float32] = (total - np.float32(510)) / np.float32(math.sqrt(4 * (256**2 - 1) / 12))
    return noise


def grey_png(grey: Greys) -> bytes:
    """An 8-bit grey PNG (height, width): three chunks, an eighth of the time of a general writer at this size."""
    height, width = grey.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = grey
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
