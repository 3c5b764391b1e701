"""Image files as other tools write them: read where any decoder here reads them, else named for what they are."""

import base64
import struct
import zlib

import numpy as np
import pytest
from photos import encoded, picture
from PIL import Image

from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.image_digests import digest_images
from vitpipe.stages.ingest.look.likeness import likeness
from vitpipe.stages.ingest.look.structure import check_structure

RGB = picture(7, width=30, height=20)
PNG, JPEG = encoded(RGB, "PNG"), encoded(RGB, "JPEG")
HEAD = 33  # of a PNG, with its IHDR
FRAME = JPEG.index(b"\xff\xc0")
"""Where the JPEG's frame header begins."""


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(first=b"", last=b""):
    """The PNG with chunks before and behind its pixels."""
    return PNG[:HEAD] + first + PNG[HEAD:-12] + last + PNG[-12:]


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return chunk(b"eXIf", found.tobytes().removeprefix(b"Exif\0\0"))


def deflated(kind, size):
    return chunk(kind, b"name\0\0" + zlib.compress(bytes(size)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("more", [b"", deflated(b"zTXt", 2_000_000)], ids=["", "with much text"])
def test_a_png_is_turned_wherever_its_exif_stands(orientation, more):
    upright = decode(png(exif(orientation)))
    late = png(more, exif(orientation))
    assert (decode(late) == upright).all()
    assert (orientation == 1) == np.array_equal(upright, np.asarray(RGB))
    header = check_structure(late)
    assert (header.height, header.width) == upright.shape[:2]
    assert likeness(late) == likeness(png(exif(orientation)))


@pytest.mark.parametrize(
    "data",
    [
        png(deflated(b"zTXt", 2_000_000)),
        png(deflated(b"iCCP", 2_000_000)),
        png(last=deflated(b"zTXt", 2_000_000)),
        png(chunk(b"iTXt", b"name\0\1\0\0\0" + zlib.compress(bytes(2_000_000)))),
        png(chunk(b"tEXt", b"name\0" + b"x" * 70_000_000)),
        png(chunk(b"iCCP", b"name\0\0no zlib stream")),
        png(chunk(b"iCCP", b"name\0\7method")),
    ],
    ids=["text", "profile", "text behind", "international", "all texts", "no profile", "no method"],
)
def test_what_is_no_pixel_refuses_no_png(data):
    assert (decode(data) == np.asarray(RGB)).all() and likeness(data) == likeness(PNG)
    assert check_structure(data).width == 30


def test_a_damaged_png_stays_damaged():
    """The text is left out only where it is whole, and nothing else is."""
    text = deflated(b"zTXt", 2_000_000)
    for data in (png(text[:-1] + b"\0"), png(text)[:-40], png(text).replace(b"IDAT", b"IDAX")):
        for look in (decode, check_structure):
            with pytest.raises(BadImage, match=r"PNG (damaged|truncated)"):
                look(data)


@pytest.mark.parametrize("junk", [b"\0", b"\x12\x34\x56", b"\xff\x00\x12", b"\0" * 700, b"\xff\xff"])
@pytest.mark.parametrize("place", [FRAME, JPEG.index(b"\xff\xdb"), JPEG.index(b"\xff\xda")])
def test_bytes_between_the_segments_of_a_jpeg_are_passed_over(junk, place):
    data = JPEG[:place] + junk + JPEG[place:]
    assert (decode(data) == decode(JPEG)).all()
    header = check_structure(data)
    assert (header.height, header.width) == (20, 30)
    (found,) = digest_images([data])
    assert (found.header, found.pixels_sha256) == (header, digest_images([JPEG])[0].pixels_sha256)
    with pytest.raises(BadImage):
        check_structure(data[:-40])


def reframed(marker=0xC0, bits=8, components=3):
    data = bytearray(JPEG)
    data[FRAME + 1], data[FRAME + 4], data[FRAME + 9] = marker, bits, components
    return bytes(data)


def depth(bits, colours, interlace=0):
    body = struct.pack(">IIBBBBB", 30, 20, bits, colours, 0, 0, interlace)
    return PNG[:8] + chunk(b"IHDR", body) + PNG[HEAD:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (reframed(bits=12), "JPEG of a kind that is not read: 12 bits a sample"),
        (reframed(0xC1, 12), "JPEG of a kind that is not read: 12 bits a sample"),
        (reframed(0xC3, 16), "JPEG of a kind that is not read: 16 bits a sample"),
        (reframed(components=2), "JPEG of a kind that is not read: 2 components"),
        (reframed(0xC5), "JPEG of a kind that is not read: hierarchical"),
        (reframed(0xCB), "JPEG of a kind that is not read: lossless in arithmetic coding"),
        (reframed(0xF7), "JPEG of a kind that is not read: JPEG-LS"),
        (reframed(0xC3), r"JPEG damaged, or of a kind that is not read on this machine \(lossless\)"),
        (PNG[:8] + chunk(b"CgBI", bytes(4)) + PNG[8:], "PNG of a kind that is not read: Apple's own"),
        (depth(3, 2), "PNG damaged: no image has the depth"),
        (depth(8, 5), "PNG damaged: no image has the depth"),
        (depth(8, 2, 2), "PNG damaged: no image has the depth"),
        (PNG[:HEAD] + PNG[-12:], "PNG damaged"),
        (encoded(RGB, "WEBP", lossless=True)[:20] + bytes(10), "WEBP damaged|WebP"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "the pointer of Git LFS"),
        (b"/annex/objects/SHA256E-s9--00.jpg\n", "the pointer of git-annex"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL"),
    ],
)
def test_what_no_decoder_reads_is_refused_by_either_check(data, reason):
    for look in (decode, check_structure):
        with pytest.raises(BadImage, match=reason):
            look(data)


ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PT"
    "gyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/yQARCAAQ"
    "ABQDASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD2BAa/5ENKYYIr4mUXIif8EKY8OhOdBvNAfoBCcNtkTqXhJejyunAa31PaW6"
    "RkB9rGJAP9+sMDinHlkLNIiqFK13pto0xuAnD1+nyqHEktNCiuHX6u2+p0CTft2zRoHcsX3XOTRPOwvb9qmKqcw3YtUApYu2AAAAAzbcitKsrb"
    "6cTZstsMAf1a1d7BgfN5HCYNf29dRLCMncU3U9mXBLUVyQ3Cefu066PQnF7uS32kdWtLTrvg/9k="
)
LOSSLESS = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgAEAAUA1IRAEcRAEIRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAUIBAf/2gAMA1IARwBCAAEAAJ/4Nw1VVV"
    "VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVWFIUhRVVVVVVVVVVVVVVVVVVVXbt2qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqwpCkKKqqqqqqqqqqqqq"
    "qqqqqqqq7du1VVVVVVVVVVVVVVVVVVVVVVVVVVVVVWFIUhRVVVVVVVVVVVVVVVVVVVVVVVXbt2qqqqqqqqqqqqqqqqqqqqqqqqqqqqwpCkKKqq"
    "qqqqqqqqqqqqqqqqqqqqqqq7du1VVVVVVVVVVVVVVVVVVVVVVVVVVWFIUhRVVVVVVVVVVVVVVVVVVVVVVVVVVXbt2qqqqqqqqqqqqqqqqqqqqq"
    "qqqqwpCkKKqqqqqqqqqqqqqqqqqqqqqqqqqqqq7du1VVVVVVVVVVVVVVVVVVVVVVWFIUhRVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVXbt2qqqqqq"
    "qqqqqqqqqqqqqqqwpCkKKqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq7du1VVVVVVVVVVVVVVVVVVWFIUhRVVVVVVVVVVVVVVVVVVVVVVVVVVVVV"
    "VVVVWFNu3aqqqqqqqqqqqqqqqqrCkKQoqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqrCkKQpt27VVVVVVVVVVVVVVVYUhSFFVVVVVVVVVVVVVVV"
    "VVVVVVVVVVVVVVVVVVYUhSFFVdu3aqqqqqqqqqqqqqrCkKQoqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqrCkKQoqqqrt27VVVVVVVVVVVVYUhSF"
    "FVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVYUhSFFVVVVVdu3aqqqqqqqqqrCkKQoqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqrCkKQoqqqqqqqrt"
    "27VVVVVVVVYUhSFFVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVYUhSFFVVVVVVVVdu3aqqqqqrCkKQoqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
    "qrCkKQoqqqqqqqqqqr//2Q=="
)
"""By libjpeg-turbo 3.2: `arith_code`, and `jpeg_enable_lossless`."""


@pytest.mark.parametrize("data", [ARITHMETIC, LOSSLESS], ids=["arithmetic", "lossless"])
def test_rare_kinds_are_as_this_libjpeg_has_them(data):
    """Either check says the same: the structure check decodes them."""
    try:
        pixels = decode(data)
    except BadImage as error:
        assert "of a kind that is not read on this machine" in str(error)
        with pytest.raises(BadImage, match="not read on this machine"):
            check_structure(data)
    else:
        header = check_structure(data)
        assert (header.height, header.width) == pixels.shape[:2] == (16, 20)
        assert likeness(data) is not None
    with pytest.raises(BadImage):
        check_structure(data[:-60])
