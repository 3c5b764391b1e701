"""Whether an image file is whole, without decoding a pixel: enough to trust a source that was decoded before. No torch.

Finds what is cut, and in PNG any damage; a bit that flipped in the pixels of a JPEG or WebP is found by decoding alone.
"""

import io
import zlib

from PIL import Image

from vitpipe.stages.images.decode import DECODE_FAILURES, check_header, damaged
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.header import BARE, FORMATS, BadImage, Header

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_MARKER = 0xFF
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"


def check_structure(data: bytes) -> Header:
    """Format and upright size of a whole file. BadImage with the reason."""
    header = check_header(data)
    extension = loaded_extension()
    if header.ext == "jpg" and extension is not None and extension.is_plain(data):
        return header
    {"jpg": _whole_jpeg, "png": _whole_png, "webp": _whole_webp}[header.ext](data)
    if _orientation(data, header) in _TURNED:
        return Header(header.ext, header.height, header.width)
    return header


def _whole_jpeg(data: bytes) -> None:
    """A thumbnail in the metadata has an end too: what counts is one after the first scan began."""
    if data.rfind(_END_OF_IMAGE) < _scans(data):
        raise BadImage("JPEG truncated: it has no end after its scans")


def _scans(data: bytes) -> int:
    """Where the first scan begins, found from marker to marker."""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return at
        if data[at] != _MARKER:
            raise BadImage(f"JPEG damaged: no marker at byte {at}")
        bare = marker == _MARKER or marker in BARE
        at += (1 if marker == _MARKER else 2) if bare else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise BadImage("JPEG truncated before its first scan")


def _whole_png(data: bytes) -> None:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise BadImage(f"PNG damaged: the checksum of its chunk {kind!r} at byte {at} is wrong")
        if kind == b"IEND":
            return
        at = end + 4
    raise BadImage(f"PNG truncated: it ends at byte {len(data)} inside a chunk")


def _whole_webp(data: bytes) -> None:
    wanted = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < wanted:
        raise BadImage(f"WebP truncated: {len(data)} of {wanted} bytes")


def _orientation(data: bytes, header: Header) -> int:
    metadata = data[: _scans(data)] if header.ext == "jpg" else data  # a search through pixels costs more than the rest
    if b"Exif" not in metadata and b"EXIF" not in metadata and b"eXIf" not in metadata:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=(FORMATS[header.ext],)) as image:
            return int(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info else 1  # as in decode
    except DECODE_FAILURES as error:
        raise damaged(header.ext, error) from error
