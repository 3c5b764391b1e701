"""A file has the same digests whichever decoder reads it, row by row or the whole image at once."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded, picture
from PIL import Image

from tests.stages.images.jpegs import jpeg, jpegs, needs_extension, textured
from vitpipe.stages.images import image_digests as module
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage, Header
from vitpipe.stages.images.image_digests import digest_images


def wanted(data: bytes) -> tuple[Header, str, str] | str:
    """Digests by decoding the whole image; for a refused one, the reason."""
    try:
        pixels = decode(data)
    except BadImage as error:
        return str(error)
    height, width = pixels.shape[:2]
    head = f"{height}x{width}".encode()
    ext = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}[data[:2]]
    return Header(ext, width, height), *(hashlib.sha256(one).hexdigest() for one in (data, head + pixels.tobytes()))


def found(files: list[bytes]) -> list[tuple[Header, str, str] | str]:
    return [
        str(one) if isinstance(one, BadImage) else (one.header, one.sha256, one.pixels_sha256)
        for one in digest_images(files)
    ]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata in many words
@settings(deadline=None, max_examples=40)
@given(files=st.lists(jpegs(90), max_size=20), data=st.data())
def test_each_is_what_decoding_says_damaged_or_not(files, data):
    files = [bytearray(file) for file in files]
    for file in files:
        if data.draw(st.booleans()):
            file[data.draw(st.integers(2, len(file) - 1))] ^= data.draw(st.integers(1, 255))
        elif data.draw(st.booleans()):
            del file[data.draw(st.integers(2, len(file) - 1)) :]
    files = [bytes(file) for file in files]
    assert found(files) == [wanted(file) for file in files]


def odd_files() -> list[bytes]:
    turned, upright = Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112] = 6, 1
    return [
        jpeg(textured(33, 57, 1)), encoded(picture(2), "PNG"), b"", b"no image", encoded(picture(3), "WEBP"),
        encoded(textured(40, 60, 4), "JPEG", exif=turned), encoded(textured(40, 60, 5), "JPEG", exif=upright),
        encoded(picture(6).convert("CMYK"), "JPEG"), encoded(picture(7).convert("L"), "JPEG"),
        jpeg(textured(300, 5, 8), progressive=True), jpeg(textured(5, 300, 9))[:-90], jpeg(textured(500, 400, 10)),
        jpeg(textured(1, 1, 11), optimize=True), jpeg(textured(16, 16, 12)),
    ]  # fmt: skip


@pytest.mark.parametrize("extension", ["as it is here", "none"])
def test_kinds_beside_each_other(extension, monkeypatch):
    files = odd_files()
    answers = [wanted(file) for file in files]
    assert sum(isinstance(one, str) for one in answers) == 3
    if extension == "none":
        monkeypatch.setattr(module, "sha256_extension", lambda: None)
    assert found(files) == answers
    assert found(files[::-1]) == answers[::-1]
    assert found([]) == []


def test_more_than_are_under_way_at_once():
    """Of many sizes and tables; of some libjpeg holds everything, and those wait for each other."""
    files = [
        jpeg(textured(8 + 37 * number % 300, 8 + 53 * number % 400, number), progressive=number % 3 == 0,
             optimize=number % 2 == 0)
        for number in range(70)
    ]  # fmt: skip
    files[5], files[40] = files[5][:-200], files[40][:100]
    assert found(files) == [wanted(file) for file in files]


@needs_extension
def test_a_plain_jpeg_is_never_held_whole(monkeypatch):
    monkeypatch.setattr(module, "decode", lambda data: pytest.fail("decoded whole"))
    if module.sha256_extension() is None:
        pytest.skip("this CPU has no instructions for SHA-256")
    upright = Image.Exif()
    upright[0x0112] = 1
    files = [jpeg(textured(200, 300, number)) for number in range(3)]
    assert all(not isinstance(one, str) for one in found([*files, encoded(textured(40, 60, 5), "JPEG", exif=upright)]))


def test_the_size_stands_in_the_digest():
    wide, tall = (encoded(Image.fromarray(np.zeros(shape, np.uint8)), "PNG") for shape in ((2, 8, 3), (8, 2, 3)))
    one, other = digest_images([wide, tall])
    assert one.pixels_sha256 != other.pixels_sha256
