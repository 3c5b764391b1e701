"""The calls of our C extension: parts of JPEGs, planes varied, restart markers and digests. No torch.

Pixels never depend on it: it uses Pillow's own libjpeg, and refuses every file that libjpeg warns about; what it
refuses, and where it is not built, is decoded whole. Knows bytes and boxes, not where they come from.
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
        self._images.argtypes, self._images.restype = [at, size, at], None
        self._boxes = library.vitpipe_boxes
        self._boxes.argtypes, self._boxes.restype = [at, at, size, ctypes.c_double, at, at], None
        self._tile.argtypes = [at, size, at, size, ctypes.POINTER(size)]
        self.planes = Planes(library)
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


class Planes:
    """What the compiled library does with the contiguous planes (3, H, W) of an image, as `planes.NumpyPlanes`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        size, number, address, single = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_float
        self._histograms, self._tables = library.vitpipe_histograms, library.vitpipe_tables
        self._nearest, self._colour = library.vitpipe_nearest, library.vitpipe_colour
        self._smooth, self._blend = library.vitpipe_smooth, library.vitpipe_blend
        self._histograms.argtypes = self._tables.argtypes = [address, size, address]
        self._nearest.argtypes = [address, size, size, address, number, address]
        self._colour.argtypes = self._blend.argtypes = [address, size, single, address]
        self._smooth.argtypes = [address, size, size, number, address]
        for call in (self._histograms, self._tables, self._nearest, self._colour, self._smooth, self._blend):
            call.restype = None

    def histograms(self, planes: Bytes) -> npt.NDArray[np.int64]:
        """Count the pixels (3, 256) of each level."""
        counts = np.empty((3, 256), dtype=np.int64)
        self._histograms(planes.ctypes.data, planes[0].size, counts.ctypes.data)
        return counts

    def by_tables(self, planes: Bytes, tables: Bytes) -> None:
        """Replace each level of each plane by what its table (3, 256) says, in place."""
        self._tables(planes.ctypes.data, planes[0].size, tables.ctypes.data)

    def nearest(self, planes: Bytes, matrix: npt.NDArray[np.float32], fill: int) -> Bytes:
        """Take the pixel nearest to where a matrix of six numbers leads, or `fill` outside."""
        to = np.empty_like(planes)
        self._nearest(planes.ctypes.data, *planes.shape[1:], matrix.ctypes.data, fill, to.ctypes.data)
        return to

    def colour(self, planes: Bytes, factor: float) -> Bytes:
        """Blend an image with its grey one."""
        to = np.empty_like(planes)
        self._colour(planes.ctypes.data, planes[0].size, factor, to.ctypes.data)
        return to

    def smooth(self, planes: Bytes, rounded: bool) -> Bytes:
        """Average each pixel with its neighbours."""
        to = np.empty_like(planes)
        self._smooth(planes.ctypes.data, *planes.shape[1:], rounded, to.ctypes.data)
        return to

    def blend(self, one: Bytes, other: Bytes, factor: float) -> Bytes:
        """Go from one image by `factor` towards the other, or past it."""
        to = one.copy()
        self._blend(other.ctypes.data, other.size, factor, to.ctypes.data)
        return to
