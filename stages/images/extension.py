"""Pixels of a part of a JPEG by our C extension; what it does not take, and where it is not built, is decoded whole.

Never a question of pixels: the extension uses Pillow's own libjpeg, and leaves every file with a remark to Pillow.
Knows bytes and boxes, not where they come from. No torch.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.native.compilation import DO, compiled_extension

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]
"""Of a file, (N,), perhaps where a tar is mapped; or of pixels."""

_REFUSED, _EXIF_FIRST = 1, 2
_ROOM_FOR_TABLES = 65_536


def jpeg_part(data: Bytes, height: int, width: int, box: Box, upright: bool = False) -> Bytes | None:
    """`box` of a JPEG stored at that size, (height, width, 3); None: it is not for us. Equal to the whole, cut.

    ExifFirst, unless it is known to be `upright`. Damage outside the box may go unseen: digests are for that.
    """
    found = loaded_extension()
    return None if found is None else found.decode_part(data, height, width, box, upright)


def mirror(planes_CHW: Bytes, to_CHW: Bytes) -> None:
    """Copy contiguous planes, left for right."""
    found = loaded_extension()
    if found is None:
        to_CHW[...] = planes_CHW[:, :, ::-1]
    else:
        found.mirror(planes_CHW, to_CHW)


@cache
def loaded_extension() -> "Extension | None":
    """The extension; told once in the log when it is missing."""
    path = compiled_extension()
    if path is None:
        log.warning("the reader's C extension is not built: images are decoded whole, which is slower. %s", DO)
    return None if path is None else Extension.load(path)


class ExifFirst(Exception):
    """The file has Exif, which may say that it lies otherwise than it is stored."""


class Extension:
    """The calls of the compiled library; while one works, other threads run."""

    def __init__(self, library: ctypes.CDLL) -> None:
        size, number, address = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
        self._decode_part, self._mirror, self._tile, self._is_plain, self._sha256, self._contents = (
            library.vitpipe_decode_part, library.vitpipe_mirror, library.vitpipe_tile, library.vitpipe_is_plain,
            library.vitpipe_sha256, library.vitpipe_contents,
        )  # fmt: skip
        self._decode_part.argtypes = [address, size, *[number] * 7, address]
        self._mirror.argtypes, self._mirror.restype = [address, size, size, address], None
        self._tile.argtypes = [address, size, address, size, ctypes.POINTER(size)]
        self._is_plain.argtypes = self._sha256.argtypes = self._contents.argtypes = [address, size]

    @classmethod
    def load(cls, path: Path) -> "Extension":
        return cls(ctypes.CDLL(str(path)))

    def decode_part(self, data: Bytes, height: int, width: int, box: Box, upright: bool) -> Bytes | None:
        """As `jpeg_part`."""
        pixels = np.empty((box.height, box.width, 3), dtype=np.uint8)
        found = self._decode_part(data.ctypes.data, data.size, width, height, upright, *box, pixels.ctypes.data)
        if found == _EXIF_FIRST:
            raise ExifFirst
        return None if found == _REFUSED else pixels

    def mirror(self, planes_CHW: Bytes, to_CHW: Bytes) -> None:
        """As `mirror`."""
        channels, height, width = planes_CHW.shape
        self._mirror(planes_CHW.ctypes.data, channels * height, width, to_CHW.ctypes.data)

    def tile(self, data: Bytes) -> bytes | None:
        """The same JPEG with restart markers in every row of MCUs, and the same pixels; None for one to leave alone."""
        room = np.empty(2 * data.size + _ROOM_FOR_TABLES, dtype=np.uint8)
        written = ctypes.c_size_t()
        if self._tile(data.ctypes.data, data.size, room.ctypes.data, room.size, ctypes.byref(written)):
            return None
        return room[: written.value].tobytes()

    def is_plain(self, data: bytes) -> bool:
        """Whether a JPEG is whole by its markers, with nothing that may say it lies otherwise than stored."""
        return bool(self._is_plain(data, len(data)))

    def sha256(self, messages: "ctypes.Array[Any]") -> bool:
        """Go on with each `struct message`; False where this CPU lacks the instructions."""
        return not self._sha256(ctypes.addressof(messages), len(messages))

    def contents(self, contents: "ctypes.Array[Any]") -> bool:
        """Digest the pixels of each `struct content`; False where this CPU lacks the instructions, or memory."""
        return not self._contents(ctypes.addressof(contents), len(contents))
