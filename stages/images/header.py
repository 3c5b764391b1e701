"""Format and size of an image from its first bytes, before any decoder sees it. JPEG, PNG and WebP only."""

import struct
from collections.abc import Callable, Iterator
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
_MARKER, _END_OF_IMAGE, _START_OF_SCAN = 0xFF, 0xD9, 0xDA
_RARE = {0xC3: "lossless", 0xC9: "arithmetic coding", 0xCA: "arithmetic coding"}
"""Frames that some builds of libjpeg read and others do not: who meets them, tries."""
_UNREAD = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"), 0xCB: "lossless in arithmetic coding",
    0xF7: "JPEG-LS",
}  # fmt: skip
"""Frames that no decoder here reads."""
_JPEG_LS = 0xF7
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample by colour type."""


def read_header(data: bytes) -> Header:
    """Read format and size. BadImage naming what the bytes look like, for anything but JPEG, PNG and WebP."""
    if not data:
        raise BadImage("the file is empty")
    if data[:3] == b"\xff\xd8\xff":
        return Header("jpg", *_jpeg_size(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 29:
        return Header("png", *_png_size(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"CgBI":
        raise BadImage("PNG of a kind that is not read: Apple's own, of its apps (CgBI)")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return Header("webp", *_webp_size(data))
    raise BadImage(f"not a JPEG, PNG or WebP: {_looks_like(data)}")


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's markers before its first scan, and that scan's: marker, where it stands, where the next is looked for.

    Bytes between segments that are none are passed over, as libjpeg and Pillow do.
    """
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != _MARKER:
            at = data.find(_MARKER, at)
            if at < 0:
                return
        elif marker in (_MARKER, 0x00):  # padding, and a byte that is no marker
            at += 1 if marker else 2
        else:
            behind = at + 2 + (0 if marker in BARE else int.from_bytes(data[at + 2 : at + 4], "big"))
            yield marker, at, behind
            if marker == _START_OF_SCAN:
                return
            at = behind


def rare_kind(data: bytes) -> str:
    """What a JPEG is that not every libjpeg reads: decoding alone tells whether this one does. Nothing for others."""
    return next((_RARE.get(marker, "") for marker, _, _ in segments(data) if marker in SIZED), "")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, at, _ in segments(data):
        if at + 10 > len(data):
            break
        if marker in SIZED or marker == _JPEG_LS:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            unread = _UNREAD.get(marker) or (f"{bits} bits a sample" if bits != 8 else "")
            if unread or components not in (1, 3, 4):
                raise BadImage(f"JPEG of a kind that is not read: {unread or f'{components} components'}")
            return width, height
        if marker in (_END_OF_IMAGE, _START_OF_SCAN):
            raise BadImage("JPEG damaged: no frame header before the image data")
    raise BadImage("JPEG truncated inside its header")


def _png_size(data: bytes) -> tuple[int, int]:
    width, height, bits, colours, *rest = struct.unpack_from(">IIBBBBB", data, 16)
    if bits not in _PNG_DEPTHS.get(colours, ()) or rest not in ([0, 0, 0], [0, 0, 1]):
        told = ", ".join(map(str, (bits, colours, *rest)))
        raise BadImage(f"PNG damaged: no image has the depth, colour type and methods {told}")
    return width, height


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


POINTERS = {
    b"version https://git-lfs": "the pointer of Git LFS to a file that was not fetched (`git lfs pull`)",
    b"/annex/objects/": "the pointer of git-annex to a file that was not fetched (`git annex get`)",
}  # fmt: skip
"""Small text files that stand in the place of large ones, by their first bytes."""

_SIGNATURES = {
    **POINTERS,
    b"\xff\x0a": "a JPEG XL", b"\0\0\0\x0cJXL": "a JPEG XL", b"\0\0\0\x0cjP": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"8BPS": "a Photoshop file", b"\x8aMNG": "an MNG", b"\0\0\1\0": "an icon",
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF",
    b"II+\0": "a BigTIFF", b"MM\0+": "a BigTIFF",
    **dict.fromkeys((b"P%d%c" % (number, space) for number in range(1, 8) for space in b"\n \r\t"), "a PNM"),
    b"%PDF": "a PDF", b"<": "text or SVG",
    b"\x1f\x8b": "a gzip file", b"PK": "a zip file",
}  # fmt: skip


def _looks_like(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "it looks like a HEIC, AVIF or video"
    if data and not any(data):
        return "it is nothing but zeros"
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return f"it looks like {name}"
    return f"it begins with {data[:8].hex(' ')}"
