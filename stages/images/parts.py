"""Pixels of a part of a JPEG by our C extension; what it does not take, and where it is not built, is decoded whole.

Never a question of pixels: the extension uses Pillow's own libjpeg, and leaves every file with a remark to Pillow.
Knows bytes and boxes, not where they come from. No torch.
"""

import ctypes
import logging
from functools import cache

import numpy as np
import numpy.typing as npt

from stages.images.crops import Box
from stages.images.native.build import DO, extension

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]
"""Of a file, (N,), perhaps where a tar is mapped; or of pixels."""

_REFUSED, _EXIF_FIRST = 1, 2


class ExifFirst(Exception):
    """The file has Exif, which may say that it lies otherwise than it is stored."""


def jpeg_part(data: Bytes, height: int, width: int, box: Box, upright: bool = False) -> Bytes | None:
    """`box` of a JPEG stored at that size, (height, width, 3); None: it is not for us. Equal to the whole, cut.

    ExifFirst, unless it is known to be `upright`. Damage outside the box may go unseen: digests are for that.
    """
    library = loaded()
    if library is None:
        return None
    pixels = np.empty((box.height, box.width, 3), dtype=np.uint8)
    found = library.vitpipe_decode_part(data.ctypes.data, data.size, width, height, upright, *box, pixels.ctypes.data)
    if found == _EXIF_FIRST:
        raise ExifFirst
    return None if found == _REFUSED else pixels


def mirror(planes_CHW: Bytes, to_CHW: Bytes) -> None:
    """Copy contiguous planes, left for right."""
    library = loaded()
    if library is None:
        to_CHW[...] = planes_CHW[:, :, ::-1]
    else:
        channels, height, width = planes_CHW.shape
        library.vitpipe_mirror(planes_CHW.ctypes.data, channels * height, width, to_CHW.ctypes.data)


@cache
def loaded() -> ctypes.CDLL | None:
    """The extension; told once in the log when it is missing."""
    path = extension()
    if path is None:
        log.warning("the reader's C extension is not built: images are decoded whole, which is slower. %s", DO)
        return None
    library = ctypes.CDLL(str(path))  # whose calls let other threads run
    size, number, address = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    library.vitpipe_decode_part.argtypes = [address, size, *[number] * 7, address]
    library.vitpipe_mirror.argtypes, library.vitpipe_mirror.restype = [address, size, size, address], None
    return library
