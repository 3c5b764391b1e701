"""The calls of our C extension: images of a batch, parts of JPEGs and PNGs, restart markers and digests. No torch.

Pixels never depend on it: it uses Pillow's own libjpeg, refuses every file that libjpeg warns about, and every PNG that
anything can be said against; what it refuses, and where it is not built, is decoded whole. Knows bytes and boxes, not
where they come from.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.keys import Floats, Ints
from vitpipe.stages.images.native.compilation import DO, compiled_extension

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]
"""Bytes (N,) of a file, possibly a view of a mapped tar; or pixels."""

_REFUSED, _EXIF_FIRST = 1, 2
_ROOM_FOR_TABLES = 65_536


def jpeg_part(data: Bytes, height: int, width: int, box: Box, upright: bool = False) -> Bytes | None:
    """Decode `box` of a JPEG stored at that size, as the whole image would be, cut; None when the extension refuses.

    ExifFirst for a file with Exif, unless it is known to be `upright`. Damage outside the box is left to digests.
    """
    found = loaded_extension()
    return None if found is None else found.decode_part(data, height, width, box, upright)


def address(array: npt.NDArray[Any]) -> int:
    """Where an array's memory begins. `array.ctypes.data` says the same in four times the time."""
    return int(array.__array_interface__["data"][0])


def png_part(data: Bytes, height: int, width: int, box: Box) -> Bytes | None:
    """Decode `box` of a PNG of that size, as the whole image would be, cut; None when the extension refuses.

    Damage below the box, in chunks that were not read, is left to digests; a file that lacks its end is refused.
    """
    found = loaded_extension()
    return None if found is None else found.png_part(data, height, width, box)


@cache
def loaded_extension() -> "Extension | None":
    """Load the extension, once; None where it is missing, which the log says once."""
    path = compiled_extension()
    if path is None:
        log.warning("the reader's C extension is not built: images are decoded whole, which is slower. %s", DO)
    return None if path is None else Extension(path)


class ExifFirst(Exception):
    """The file has Exif, which may say that it is not stored upright."""


class Extension:
    """The calls of the compiled library; while one works, other threads run."""

    def __init__(self, path: Path) -> None:
        """Open a compiled library. OSError where it cannot be loaded."""
        library = ctypes.CDLL(str(path))
        size, number, at = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
        self._decode_part, self._images = library.vitpipe_decode_part, library.vitpipe_images
        self._tile, self._is_plain = library.vitpipe_tile, library.vitpipe_is_plain
        self._sha256, self._contents = library.vitpipe_sha256, library.vitpipe_contents
        self._decode_part.argtypes = [at, size, *[number] * 7, at]
        self._png_part = library.vitpipe_png_part
        self._png_part.argtypes = [at, size, *[number] * 6, at]
        self._images.argtypes, self._images.restype = [at, size, at], None
        self._boxes = library.vitpipe_boxes
        self._boxes.argtypes, self._boxes.restype = [at, at, size, ctypes.c_double, at, at], None
        self._tile.argtypes = [at, size, at, size, ctypes.POINTER(size)]
        self._steps, self._mix = library.vitpipe_steps, library.vitpipe_mix
        self._steps.argtypes = [at, size, size, at, size]
        self._mix.argtypes, self._mix.restype = [at, at, size, ctypes.c_double], None
        self._paste = library.vitpipe_paste
        self._paste.argtypes, self._paste.restype = [at, at, *[size] * 7], None
        self._is_plain.argtypes = self._sha256.argtypes = self._contents.argtypes = [at, size]

    def decode_part(self, data: Bytes, height: int, width: int, box: Box, upright: bool) -> Bytes | None:
        """As `jpeg_part`."""
        pixels = np.empty((box.height, box.width, 3), dtype=np.uint8)
        found = self._decode_part(data.ctypes.data, data.size, width, height, upright, *box, pixels.ctypes.data)
        if found == _EXIF_FIRST:
            raise ExifFirst
        return None if found == _REFUSED else pixels

    def images(self, images: npt.NDArray[np.void]) -> list[int]:
        """Make each image that a row of `cuts.IMAGE` tells of; 0 for each that was made."""
        refused = np.empty(len(images), dtype=np.int32)
        self._images(address(images), len(images), address(refused))
        made: list[int] = refused.tolist()
        return made

    def boxes(self, shape_B2: Ints, draws_BT4: Floats, min_area: float, log_ratios: tuple[float, float] | None) -> Ints:
        """Choose boxes (B, 4) as `crops.random_resized`, or without `log_ratios` as `crops.inception` from ten tries:
        zeros where none of them fits."""
        shape_B2, found_B4 = np.ascontiguousarray(shape_B2), np.empty((len(shape_B2), 4), dtype=np.int64)
        ratios = None if log_ratios is None else (ctypes.c_double * 2)(*log_ratios)
        self._boxes(address(shape_B2), address(draws_BT4), len(shape_B2), min_area, ratios, address(found_B4))
        return found_B4

    def steps(self, planes: Bytes, steps: npt.NDArray[np.void]) -> None:
        """Take rows of `steps.STEP` on contiguous planes (3, H, W), in place. MemoryError without memory for a copy."""
        if self._steps(address(planes), *planes.shape[1:], address(steps), len(steps)):
            raise MemoryError("no memory to vary an image")

    def mix(self, one: Bytes, other: Bytes, share: float) -> None:
        """Blend contiguous bytes in place: `share` of one and the rest of the other, rounded, halves to even."""
        self._mix(address(one), address(other), one.size, share)

    def paste(self, one: Bytes, other: Bytes, rows: slice, columns: slice) -> None:
        """Copy a box of contiguous planes (C, H, W) into others; the slices have both ends, within them."""
        ends = rows.start, rows.stop, columns.start, columns.stop
        self._paste(address(one), address(other), *one.shape, *ends)

    def png_part(self, data: Bytes, height: int, width: int, box: Box) -> Bytes | None:
        """As the function `png_part`."""
        pixels = np.empty((box.height, box.width, 3), dtype=np.uint8)
        found = self._png_part(data.ctypes.data, data.size, width, height, *box, pixels.ctypes.data)
        return None if found == _REFUSED else pixels

    def tile(self, data: Bytes) -> bytes | None:
        """Rewrite a JPEG with a restart marker in every row of MCUs and the same pixels; None when it refuses."""
        room = np.empty(2 * data.size + _ROOM_FOR_TABLES, dtype=np.uint8)
        written = ctypes.c_size_t()
        if self._tile(data.ctypes.data, data.size, room.ctypes.data, room.size, ctypes.byref(written)):
            return None
        return room[: written.value].tobytes()

    def is_plain(self, data: bytes) -> bool:
        """Whether a JPEG is complete by its markers, with nothing that may say it is not stored upright."""
        return bool(self._is_plain(data, len(data)))

    def sha256(self, messages: "ctypes.Array[Any]") -> bool:
        """Digest each `struct message`; False where this CPU lacks the instructions."""
        return not self._sha256(ctypes.addressof(messages), len(messages))

    def contents(self, contents: "ctypes.Array[Any]") -> bool:
        """Digest the pixels of each `struct content`; False where this CPU lacks the instructions, or memory."""
        return not self._contents(ctypes.addressof(contents), len(contents))
