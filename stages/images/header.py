"""Format and size of an image from its first bytes, before any decoder sees it. JPEG, PNG and WebP only."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


class BadImage(Exception):
    """An image that is not accepted, with the reason in words."""


def tried(make: Callable[[Given], Result], given: Given) -> Result | BadImage:
    """Call `make(given)`; a BadImage that it raises is returned."""
    try:
        return make(given)
    except BadImage as error:
        return error


@dataclass(frozen=True)
class Header:
    """Format and size as the first bytes give them; `ext` is the extension of the format's WebDataset members."""

    ext: str
    width: int
    height: int


FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""Accepted formats: extension and Pillow's name."""

SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG frame headers: all but DHT, JPG and DAC
PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # JPEG markers without a length


def read_header(data: bytes) -> Header:
    """Read format and size. BadImage naming what the bytes look like, for anything but JPEG, PNG and WebP."""
    if not data:
        raise BadImage("the file is empty")
    if data[:3] == b"\xff\xd8\xff":
        return Header("jpg", *_jpeg_size(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        return Header("png", *struct.unpack_from(">II", data, 16))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return Header("webp", *_webp_size(data))
    raise BadImage(f"not a JPEG, PNG or WebP: {_looks_like(data)}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            raise BadImage(f"JPEG damaged: no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in BARE:
            at += 2
        elif marker in SIZED:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in (0xD9, 0xDA):
            raise BadImage("JPEG damaged: no frame header before the image data")
        else:
            at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    raise BadImage("JPEG truncated inside its header")


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise BadImage(f"WebP damaged: first chunk {chunk!r}")


_SIGNATURES = {
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF", b"<": "text or SVG",
    b"\0\0\0": "perhaps a HEIC, AVIF or video", b"\x1f\x8b": "a gzip file", b"PK": "a zip file",
}  # fmt: skip


def _looks_like(data: bytes) -> str:
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return f"it looks like {name}"
    return f"it begins with {data[:8].hex(' ')}"
