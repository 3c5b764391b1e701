"""Bytes of a JPEG, PNG or WebP to upright 8-bit RGB pixels. One rule for each odd kind; no torch.

- size: more than 50 megapixels, by the header, are refused before a decoder runs; so is a side of 0
- a JPEG of more than 500 scans is refused before a decoder runs
- grey, 1-bit and palette images become RGB of the same look; an alpha channel is dropped, the stored colour stays
  (what Pillow's and torchvision's loaders give)
- 16-bit grey keeps its upper 8 bits, as libpng's strip does for 16-bit RGB
- CMYK and YCCK are converted without a colour profile, Adobe's inverted values turned first; profiles are ignored
- EXIF orientation is applied: the pixels stand as a person sees the photo
- text, profiles and other metadata are no pixels: what is large or wrong in them refuses no image
- animations give their first frame; an image that ends early is refused, never filled with grey

Our own extension decodes plain JPEGs and PNGs, libwebp plain WebPs, Pillow everything else; the pixels are the same
either way.
"""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.extension import ExifFirst, jpeg_part, png_part
from vitpipe.stages.images.header import FORMATS, BadImage, Header, rare_kind, read_header
from vitpipe.stages.images.png_chunks import without_texts
from vitpipe.stages.images.scans import refuse_many_scans
from vitpipe.stages.images.webp import webp_part

Result = TypeVar("Result")

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 100_000_000

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3)"""

DECODE_FAILURES = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, OverflowError, TypeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's readers raise on damaged files."""


def check_header(data: bytes) -> Header:
    """Judge size, format and scans without decoding. BadImage for what is not accepted."""
    if len(data) > MAX_FILE_BYTES:
        raise BadImage(f"a file of {len(data)} bytes is over the cap of {MAX_FILE_BYTES}")
    header = read_header(data)
    if header.width * header.height > MAX_PIXELS:
        raise BadImage(f"{header.width} x {header.height} pixels are over the cap of {MAX_PIXELS}")
    if not (header.width and header.height):
        raise BadImage(f"{header.width} x {header.height} pixels")
    if header.ext == "jpg":
        refuse_many_scans(data)
    return header


def decode(data: bytes) -> Pixels:
    """Decode one image. BadImage with the reason when it is damaged or not accepted."""
    header = check_header(data)
    pixels = decode_part(np.frombuffer(data, dtype=np.uint8), header, Box(0, 0, header.height, header.width))
    return by_pillow(data, header.ext, upright) if pixels is None else pixels


def by_pillow(data: bytes, ext: str, use: Callable[[Image.Image], Result]) -> Result:
    """Open a file with Pillow, which may raise while it is used. BadImage with the reason where it does.

    Pillow gives up on a PNG for text and profiles that are large, or no text or profile; whatever they are, they are
    no pixels: such a PNG is read without.
    """
    try:
        return _opened(data, ext, use)
    except DECODE_FAILURES as error:
        bare = without_texts(data) if ext == "png" else data
        if bare is not data:
            with suppress(*DECODE_FAILURES):
                return _opened(bare, ext, use)
        raise _damaged(ext, error, rare_kind(data) if ext == "jpg" else "") from error


def _opened(data: bytes, ext: str, use: Callable[[Image.Image], Result]) -> Result:
    with Image.open(io.BytesIO(data), formats=(FORMATS[ext],)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(f"{image.width} x {image.height} pixels are over the cap of {MAX_PIXELS}")
        return use(image)


def turned(image: Image.Image) -> Image.Image:
    """Turn an image of Pillow's as its Exif says. Raises what its reader raises."""
    image.load()  # a PNG may have its Exif behind its pixels
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def upright(image: Image.Image) -> Pixels:
    """Turn an image of Pillow's, and make it RGB by the rules above. Raises what its reader raises."""
    return _rgb(turned(image))


def encoded(image: Image.Image, form: str, **options: int) -> bytes:
    """Encode an image in one of Pillow's formats, with that format's options."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _damaged(ext: str, error: Exception, rare: str) -> BadImage:
    """Turn Pillow's error into a reason, without the memory address that it would name."""
    said = "Pillow cannot identify it" if isinstance(error, UnidentifiedImageError) else error
    or_rare = f", or of a kind that is not read on this machine ({rare})" if rare else ""
    return BadImage(f"{FORMATS[ext]} damaged{or_rare}: {said}")


def decode_part(data: npt.NDArray[np.uint8], header: Header, box: Box) -> Pixels | None:
    """Decode a box of an upright image of that size, as the whole image cut; None where it has to be decoded whole."""
    if header.ext == "png":
        return png_part(data, header.height, header.width, box)
    if header.ext == "webp":
        return webp_part(data, header.height, header.width, box)
    try:
        return jpeg_part(data, header.height, header.width, box)
    except ExifFirst:
        stands = is_upright(data.tobytes())
        return jpeg_part(data, header.height, header.width, box, upright=True) if stands else None


def is_upright(data: bytes) -> bool:
    """Whether a JPEG is stored upright. False for damaged Exif, which Pillow judges when it decodes."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) not in range(2, 9)
    except DECODE_FAILURES:
        return False


def _rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
