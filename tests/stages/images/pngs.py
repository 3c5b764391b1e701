"""PNGs of every depth, colour type, filter and way to deflate, which Pillow reads and does not write."""

import struct
import zlib

import numpy as np
from hypothesis import strategies as st

KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16),
         (6, 8), (6, 16)]  # fmt: skip
"""Colour type and bits of a sample."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def frame(width: int, height: int, colours: int, depth: int, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced))


def filtered(rows: np.ndarray, filters: list[int], pixel_bytes: int) -> bytes:
    """Rows (H, bytes) as differences, each by its own filter."""
    height, row_bytes = rows.shape
    around = np.zeros((height + 1, row_bytes + pixel_bytes), dtype=np.int16)
    around[1:, pixel_bytes:] = rows
    left, above, corner = around[1:, :row_bytes], around[:-1, pixel_bytes:], around[:-1, :row_bytes]
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    is_left = (to_left <= to_above) & (to_left <= to_corner)
    nearest = np.where(is_left, left, np.where(to_above <= to_corner, above, corner))
    guesses = (0 * left, left, above, (left + above) // 2, nearest)
    return b"".join(
        bytes([which]) + (rows[y] - guesses[which][y]).astype(np.uint8).tobytes() for y, which in enumerate(filters)
    )


def file_of(
    colours: int, depth: int, width: int, height: int, stream: bytes, pieces: int = 1, before: bytes = b""
) -> bytes:
    """A whole PNG of a zlib stream, its pixels in so many chunks."""
    step = -(-len(stream) // pieces)
    idat = b"".join(chunk(b"IDAT", stream[at : at + step]) for at in range(0, len(stream), step))
    return SIGNATURE + frame(width, height, colours, depth) + before + idat + chunk(b"IEND")


@st.composite
def pngs(draw: st.DrawFn, most_px: int = 90) -> bytes:
    width, height = draw(st.integers(1, most_px)), draw(st.integers(1, most_px))
    colours, depth = draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    row_bytes, pixel_bytes = (width * CHANNELS[colours] * depth + 7) // 8, max(1, CHANNELS[colours] * depth // 8)
    steps = draw(st.sampled_from([1, 3, 30, 256]))
    rows = rng.integers(0, steps, (height, row_bytes)).cumsum(axis=draw(st.integers(0, 1))).astype(np.uint8)
    filters = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    raw = filtered(rows, [filters[y % len(filters)] for y in range(height)], pixel_bytes)
    with_zlib = zlib.compressobj(
        draw(st.sampled_from([0, 1, 6, 9])), zlib.DEFLATED, draw(st.sampled_from([9, 12, 15])),
        draw(st.sampled_from([1, 8, 9])), draw(st.sampled_from(STRATEGIES)),
    )  # fmt: skip
    stream = with_zlib.compress(raw) + with_zlib.flush()
    before = b""
    for kind, body in draw(st.lists(st.sampled_from(ANCILLARY), max_size=2, unique=True)):
        before += chunk(kind, body)
    if colours == 3:
        before += chunk(b"PLTE", rng.bytes(3 * 2**depth))
    if draw(st.booleans()) and colours in (0, 2, 3):
        before += chunk(b"tRNS", rng.bytes({0: 2, 2: 6, 3: 2}[colours]))
    return file_of(colours, depth, width, height, stream, draw(st.sampled_from([1, 1, 2, 7])), before)


ANCILLARY = [
    (b"gAMA", struct.pack(">I", 45_455)), (b"pHYs", bytes(9)), (b"tEXt", b"Title\0of the picture"),
    (b"iDOT", bytes(28)), (b"sRGB", b"\0"), (b"tIME", bytes(7)),
]  # fmt: skip
