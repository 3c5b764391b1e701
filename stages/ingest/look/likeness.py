"""How an image looks, in 256 bits: a first look of 64 to search by and a second of 192 to be sure. No torch.

Bits are the signs of low frequencies of a 32 x 32 grey thumbnail about their median (pHash: Zauner 2010), so that size,
compression, brightness and contrast hardly matter. The thumbnail comes from a DCT-scaled decode; all arithmetic after
it is in integers, the same on any machine.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitpipe.stages.images.decode import by_pillow, check_header, turned
from vitpipe.stages.images.header import rare_kind

FIRST_BITS = 64
SECOND_BITS = 192
LIKENESS_BYTES = (FIRST_BITS + SECOND_BITS) // 8
THUMBNAIL_PX = 32
_SQUARE = (THUMBNAIL_PX, THUMBNAIL_PX)
FLAT = 2.0
"""Standard deviation of the thumbnail, grey levels, below which an image looks like nothing in particular."""
DRAFT_PX = 64
"""A JPEG is decoded at the smallest eighth of its size that is not below this."""
_SCALE = 4096


TRIMS = (
    (0.0, 0.0, 0.0, 0.0), (0.01, 0.01, 0.01, 0.01), (0.02, 0.02, 0.02, 0.02), (0.02, 0.02, 0.0, 0.0),
    (0.0, 0.02, 0.02, 0.0), (0.0, 0.0, 0.02, 0.02), (0.02, 0.0, 0.0, 0.02),
)  # fmt: skip
"""Parts cut from left, top, right and bottom in the views of an image: a trimmed copy looks like one of them."""
Grey = npt.NDArray[np.uint8]


def likeness(data: bytes) -> bytes | None:
    """The 32 bytes of an image, 8 of the first look, 24 of the second; None without structure. BadImage as decoding."""
    (grey,) = _thumbnails(data, TRIMS[:1])
    return _look(grey)


def views(data: bytes) -> tuple[bytes, ...]:
    """How one image looks whole and trimmed, the whole first; nothing for one without structure. BadImage likewise."""
    looks = (_look(grey) for grey in _thumbnails(data, TRIMS))
    return tuple(dict.fromkeys(look for look in looks if look is not None))


def _look(grey: Grey) -> bytes | None:
    if grey.std() < FLAT:
        return None
    waves = _cosines() @ grey.astype(np.int64) @ _cosines().T
    rows, columns = _order()
    signs = [part > np.median(part) for part in np.split(waves[rows, columns], [FIRST_BITS])]
    return np.packbits(np.concatenate(signs)).tobytes()


def _thumbnails(data: bytes, trims: Sequence[tuple[float, float, float, float]]) -> list[Grey]:
    """(32, 32) greys of the upright image, its sides squeezed alike, each without what its trim cuts off."""
    ext = check_header(data).ext

    def cut(image: Image.Image) -> list[Grey]:
        if not (ext == "jpg" and rare_kind(data)):  # a lossless one cannot be decoded smaller
            image.draft("L" if image.mode == "RGB" else None, (DRAFT_PX, DRAFT_PX))
        upright = turned(image)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        if upright.mode != "L":
            upright = upright.convert("RGB").convert("L")
        wide, high = upright.size
        boxes = [(left * wide, top * high, wide - right * wide, high - low * high) for left, top, right, low in trims]
        return [np.asarray(upright.resize(_SQUARE, Image.Resampling.BILINEAR, box)) for box in boxes]

    return by_pillow(data, ext, cut)


@lru_cache(maxsize=1)
def _cosines() -> npt.NDArray[np.int64]:
    """Frequencies 0 to 23 of a DCT-II (24, 32), times 4096."""
    frequencies, places = np.arange(24)[:, None], np.arange(THUMBNAIL_PX)[None] + 0.5
    cosines: npt.NDArray[np.float64] = np.cos(np.pi * places * frequencies / THUMBNAIL_PX)
    scaled: npt.NDArray[np.int64] = np.rint(_SCALE * cosines).astype(np.int64)
    return scaled


@lru_cache(maxsize=1)
def _order() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the 256 lowest frequencies but the mean, in diagonals from the lowest."""
    places = sorted((u + v, u, v) for u in range(24) for v in range(24))[1 : 1 + FIRST_BITS + SECOND_BITS]
    _, rows, columns = np.array(places, dtype=np.int64).T
    return rows, columns
