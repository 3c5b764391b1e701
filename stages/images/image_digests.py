"""The identity of image files: their upright size, and the digests of their bytes and of their pixels. No torch.

Our extension decodes and digests plain JPEGs row by row, so that no image's pixels are ever held; all others are
decoded one at a time. The digests are the same either way.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vitpipe.stages.images.decode import check_header, decode, is_upright
from vitpipe.stages.images.digests import sha256_each, sha256_extension
from vitpipe.stages.images.extension import Extension
from vitpipe.stages.images.header import BadImage, Header, tried

_FOUND, _REFUSED, _EXIF_FIRST = range(3)


class ImageDigests(NamedTuple):
    """Size and digests of a sound image."""

    header: Header
    """Format, and size of the upright image."""
    sha256: str
    """Digest of its bytes."""
    pixels_sha256: str
    """Digest of `HEIGHTxWIDTH` and its decoded pixels, upright."""


def digest_images(files: Sequence[bytes]) -> list[ImageDigests | BadImage]:
    """Digest each file, or say why it is not accepted."""
    headers = [tried(check_header, data) for data in files]
    extension = sha256_extension()
    quick = {} if extension is None else digests_by_extension(extension, files, headers)
    return [
        header if isinstance(header, BadImage) else quick.get(place) or _decoded(data, header)
        for place, (data, header) in enumerate(zip(files, headers, strict=True))
    ]


def digests_by_extension(
    extension: Extension, files: Sequence[bytes], headers: Sequence[Header | BadImage]
) -> dict[int, ImageDigests]:
    """Digest the files that the extension takes, by their place; the CPU must have its instructions."""
    jpegs = {
        place: header for place, header in enumerate(headers) if isinstance(header, Header) and header.ext == "jpg"
    }
    found = dict(_digested(extension, files, jpegs, upright=False))
    upright = {place: jpegs[place] for place, one in found.items() if one is None and is_upright(files[place])}
    if upright:
        found |= _digested(extension, files, upright, upright=True)
    return {place: one for place, one in found.items() if one is not None}


def _decoded(data: bytes, header: Header) -> ImageDigests | BadImage:
    pixels = tried(decode, data)
    if isinstance(pixels, BadImage):
        return pixels
    height, width = pixels.shape[:2]
    of_pixels, of_bytes = sha256_each([(_head(height, width), pixels), (b"", data)])
    return ImageDigests(Header(header.ext, width, height), of_bytes, of_pixels)


def _head(height: int, width: int) -> bytes:
    return b"%dx%d" % (height, width)


class _Content(ctypes.Structure):
    """`struct content` of native/contents.c."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("data", "head")),
        *((name, ctypes.c_uint64) for name in ("size", "head_size")),
        *((name, ctypes.c_uint32) for name in ("width", "height", "upright", "found")),
        *((name, ctypes.c_ubyte * 32) for name in ("pixels", "bytes")),
    )


def _digested(
    extension: Extension, files: Sequence[bytes], headers: dict[int, Header], upright: bool
) -> Iterator[tuple[int, ImageDigests | None]]:
    """The places of files that are not refused, with their digests, or None where the Exif must be read first."""
    contents = (_Content * len(headers))(*(_content(files[place], one, upright) for place, one in headers.items()))
    if not extension.contents(contents):
        return
    for (place, header), one in zip(headers.items(), contents, strict=True):
        if one.found == _FOUND:
            yield place, ImageDigests(header, bytes(one.bytes).hex(), bytes(one.pixels).hex())
        elif one.found == _EXIF_FIRST:
            yield place, None


def _content(data: bytes, header: Header, upright: bool) -> _Content:
    head = _head(header.height, header.width)
    return _Content(data, head, len(data), len(head), header.width, header.height, upright, _REFUSED)
