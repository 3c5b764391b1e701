"""Pixels of a part of a WebP by the libwebp that Pillow brings, as the whole image cut. No torch.

libwebp decodes nothing below the part and converts nothing beside it. It is asked for two pixels more on each side, cut
off again: what it makes of colours at the border of a part is not what it makes of them inside of an image. Only for
files of one frame, without Exif, that end with it: libwebp reads on in what comes behind a damaged one, which Pillow
does not hand to it. Whatever else comes, and all that it refuses, is Pillow's to judge.
"""

import ctypes
from ctypes import c_int, c_size_t, c_uint32, c_void_p
from functools import cache

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.crops import Box

Bytes = npt.NDArray[np.uint8]

_ABI = 0x0209
"""WEBP_DECODER_ABI_VERSION of src/webp/decode.h; libwebp 1.x takes every one of 0x02.."""
_MARGIN = 2
_ANIMATED, _WITH_EXIF = 0x02, 0x08
"""Flags of a chunk VP8X."""
_FRAMES = (b"VP8 ", b"VP8L")
_EXTENDED = frozenset((b"ICCP", b"ALPH", *_FRAMES))
_RGB = 0


_OF_IMAGE = ("width", "height", "has_alpha", "has_animation", "format")
_OF_BUFFER = ("colours", "width", "height", "is_external")
_OF_PART = ("use_cropping", "left", "top", "width", "height")
_OF_OPTIONS = (
    "bypass_filtering", "no_fancy_upsampling", *_OF_PART, "use_scaling", "scaled_width", "scaled_height", "use_threads",
    "dithering", "flip", "alpha_dithering",
)  # fmt: skip


def _integers(names: tuple[str, ...]) -> tuple[tuple[str, type[c_int]], ...]:
    return tuple((name, c_int) for name in names)


class _Features(ctypes.Structure):
    _fields_ = (*_integers(_OF_IMAGE), ("pad", c_uint32 * 5))


class _Planes(ctypes.Structure):
    """Never used; the larger half of a union."""

    _fields_ = (("pixels", c_void_p * 4), ("stride", c_int * 4), ("size", c_size_t * 4))


class _Pixels(ctypes.Structure):
    _fields_ = (("pixels", c_void_p), ("stride", c_int), ("size", c_size_t))


class _Output(ctypes.Union):
    _fields_ = (("rgb", _Pixels), ("planes", _Planes))


class _Buffer(ctypes.Structure):
    _fields_ = (*_integers(_OF_BUFFER), ("output", _Output), ("pad", c_uint32 * 4), ("private", c_void_p))


class _Options(ctypes.Structure):
    _fields_ = (*_integers(_OF_OPTIONS), ("pad", c_uint32 * 5))


class _Config(ctypes.Structure):
    """`WebPDecoderConfig` of libwebp's src/webp/decode.h."""

    _fields_ = (("input", _Features), ("buffer", _Buffer), ("options", _Options))


def webp_part(data: Bytes, height: int, width: int, box: Box) -> Bytes | None:
    """Decode `box` of a WebP of that size, as the whole image would be, cut; None where Pillow has to be asked.

    Damage below the box is left to digests.
    """
    library = _libwebp()
    if library is None or not _is_plain(data):
        return None
    top, left = (max(0, start - _MARGIN) & ~1 for start in (box.top, box.left))
    bottom, right = min(height, box.top + box.height + _MARGIN), min(width, box.left + box.width + _MARGIN)
    pixels = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
    config = _Config()
    if not library.WebPInitDecoderConfigInternal(ctypes.byref(config), _ABI):
        return None
    config.buffer.colours, config.buffer.is_external = _RGB, 1
    config.buffer.output.rgb = _Pixels(pixels.ctypes.data, pixels.strides[0], pixels.nbytes)
    options = config.options
    options.use_cropping = 1
    options.left, options.top, options.width, options.height = left, top, right - left, bottom - top
    failed = library.WebPDecode(data.ctypes.data, data.size, ctypes.byref(config))
    if failed or (config.input.width, config.input.height) != (width, height):
        return None
    return Box(box.top - top, box.left - left, box.height, box.width).of(pixels)


@cache
def _libwebp() -> ctypes.CDLL | None:
    """The libwebp behind Pillow's own module; None where it is linked statically."""
    try:
        from PIL import _webp  # not in every build of Pillow

        library = ctypes.CDLL(_webp.__file__)
        library.WebPInitDecoderConfigInternal.argtypes = [c_void_p, c_int]
        library.WebPDecode.argtypes = [c_void_p, c_size_t, c_void_p]
    except (ImportError, OSError, AttributeError):
        return None
    return library


def _is_plain(data: Bytes) -> bool:
    """Whether a WebP is whole by its chunks, of one frame of its own size, with no Exif and nothing behind it."""
    size = data.size
    if size < 30 or int.from_bytes(data[4:8].tobytes(), "little") + 8 != size:
        return False
    at, kinds, head = 12, list[bytes](), data[12:30].tobytes()
    while at + 8 <= size:
        start = data[at : at + 8].tobytes()
        length = int.from_bytes(start[4:], "little")
        kinds.append(start[:4])
        at += 8 + length + length % 2
    if at != size:
        return False
    if kinds[0] != b"VP8X":
        return len(kinds) == 1 and kinds[0] in _FRAMES
    once = set(kinds[1:])
    flags = head[8] & (_ANIMATED | _WITH_EXIF)
    return not flags and once <= _EXTENDED and len(once) == len(kinds) - 1 and kinds[-1] in _FRAMES
