"""One documented outcome for every odd kind of image."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded, picture
from PIL import Image

from vitpipe.stages.images.decode import check_header, decode
from vitpipe.stages.images.header import BadImage, read_header

RGB = picture(1, width=30, height=20)
SOUND = {
    "jpeg": encoded(RGB, "JPEG"),
    "progressive jpeg": encoded(RGB, "JPEG", progressive=True),
    "grey jpeg": encoded(RGB.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(RGB.convert("CMYK"), "JPEG"),
    "png": encoded(RGB, "PNG"),
    "palette png": encoded(RGB.convert("P"), "PNG"),
    "one-bit png": encoded(RGB.convert("1"), "PNG"),
    "alpha png": encoded(RGB.convert("RGBA"), "PNG"),
    "grey alpha png": encoded(RGB.convert("LA"), "PNG"),
    "16-bit png": encoded(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG"),
    "webp": encoded(RGB, "WEBP"),
    "lossless webp": encoded(RGB, "WEBP", lossless=True),
    "alpha webp": encoded(RGB.convert("RGBA"), "WEBP"),
    "animated webp": encoded(RGB, "WEBP", save_all=True, append_images=[picture(2, 30, 20)]),
    "animated png": encoded(RGB, "PNG", save_all=True, append_images=[picture(2, 30, 20)]),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_images_become_rgb(name):
    header = check_header(SOUND[name])
    pixels = decode(SOUND[name])
    assert (header.height, header.width) == (20, 30)
    assert pixels.shape == (20, 30, 3) and pixels.dtype == np.uint8
    if "jpeg" in name or "webp" in name:
        return
    reference = np.asarray(Image.open(io.BytesIO(SOUND[name])).convert("RGB"))
    if name != "16-bit png":
        assert (pixels == reference).all()


def test_sixteen_bits_keep_their_upper_half():
    values = np.array([[0, 255, 256, 65_535]], dtype=np.uint16)
    assert decode(encoded(Image.fromarray(values), "PNG"))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_cmyk_looks_like_the_picture():
    difference = np.abs(decode(SOUND["cmyk jpeg"]).astype(int) - np.asarray(RGB))
    assert difference.mean() < 20  # an inverted one differs by a hundred
    assert np.abs(255 - decode(SOUND["cmyk jpeg"]).astype(int) - np.asarray(RGB)).mean() > 50


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = RGB
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # Image.Transpose that makes it lie as stored
    for step in undo.get(orientation, []):
        stored = stored.transpose(Image.Transpose(step))
    data = encoded(stored, "PNG", exif=exif)
    assert (decode(data) == np.asarray(RGB)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_shapes(size):
    assert decode(encoded(RGB.resize(size), "PNG")).shape == (size[1], size[0], 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no data: a decompression bomb's first bytes."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, idat, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a JPEG, PNG or WebP"),
        (encoded(RGB, "GIF"), "looks like a GIF"),
        (encoded(RGB, "BMP"), "looks like a BMP"),
        (encoded(RGB, "TIFF"), "looks like a TIFF"),
        (encoded(RGB, "TIFF", big_tiff=True), "looks like a BigTIFF"),
        (encoded(RGB, "PPM"), "looks like a PNM"),
        (b"<svg xmlns=''/>", "text or SVG"),
        (png_header(13_000, 13_000), "13000 x 13000 pixels are over the cap"),
        (png_header(30_000, 30_000), "30000 x 30000 pixels are over the cap"),
        (png_header(0, 5), "0 x 5"),
        (png_header(100, 100), "damaged"),
        (SOUND["jpeg"][:300], "truncated|damaged"),
        (SOUND["png"][:80], "damaged"),
        (SOUND["webp"][:60], "damaged"),
    ],
)
def test_refused_with_the_reason(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode(data)


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(sorted(SOUND)), at=st.floats(0, 1), bits=st.integers(1, 255), cut=st.booleans())
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata in many words
def test_damage_is_refused_or_decodes_but_never_escapes(name, at, bits, cut):
    data = bytearray(SOUND[name])
    place = int(at * (len(data) - 1))
    if cut:
        del data[place:]
    else:
        data[place] ^= bits
    try:
        header, pixels = read_header(bytes(data)), decode(bytes(data))
    except BadImage:
        return
    assert sorted(pixels.shape) == sorted((header.height, header.width, 3))
