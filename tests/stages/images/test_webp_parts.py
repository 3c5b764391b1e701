"""A part of a WebP has the pixels of the whole; whatever libwebp is not asked for, Pillow judges as before."""

import io
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded
from PIL import Image

from tests.stages.images.jpegs import boxes, textured
from vitpipe.stages.images import webp
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.webp import webp_part

pytestmark = pytest.mark.skipif(webp._libwebp() is None, reason="Pillow has its libwebp inside, or none")


def part(data: bytes, height: int, width: int, box: Box) -> np.ndarray | None:
    return webp_part(np.frombuffer(data, dtype=np.uint8), height, width, box)


def verdict(data: bytes) -> np.ndarray | None:
    try:
        return decode(data)
    except BadImage:
        return None


def by_pillow(data: bytes) -> np.ndarray | None:
    with mock.patch.object(webp, "_libwebp", lambda: None):
        return verdict(data)


@st.composite
def webps(draw: st.DrawFn, most_px: int = 100, **more: st.SearchStrategy[Any]) -> bytes:
    height, width = draw(st.tuples(st.integers(1, most_px), st.integers(1, most_px)))
    image = textured(height, width, draw(st.integers(0, 1000)))
    if draw(st.integers(0, 3)) == 0:
        image.putalpha(textured(height, width, 7).convert("L"))
    options = draw(
        st.fixed_dictionaries(
            {"quality": st.sampled_from([1, 40, 75, 95, 100]), "method": st.sampled_from([0, 4])},
            optional={
                "lossless": st.booleans(), "exact": st.just(True), "icc_profile": st.just(b"a profile"),
                "alpha_quality": st.just(20), **more,
            },
        )
    )  # fmt: skip
    return encoded(image, "WEBP", **options)


@settings(deadline=None, max_examples=120)
@given(data=st.data(), file=webps())
def test_every_part_is_the_whole_cut(data, file):
    whole = by_pillow(file)
    assert whole is not None
    height, width = whole.shape[:2]
    assert np.array_equal(part(file, height, width, Box(0, 0, height, width)), whole)
    for _ in range(4):
        box = data.draw(boxes(height, width))
        assert np.array_equal(part(file, height, width, box), box.of(whole)), box


@settings(deadline=None, max_examples=200)
@given(file=webps(60, xmp=st.just(b"<x/>")), data=st.data(), cut=st.booleans())
def test_damage_is_refused_or_gives_pillows_pixels(file, data, cut):
    damaged = bytearray(file)
    place = data.draw(st.integers(4, len(file) - 1))
    if cut:
        del damaged[place:]
    else:
        damaged[place] ^= data.draw(st.integers(1, 255))
    pixels, other = verdict(bytes(damaged)), by_pillow(bytes(damaged))
    assert (pixels is None) == (other is None)
    if other is not None:
        assert np.array_equal(pixels, other)
        box = data.draw(boxes(*other.shape[:2]))
        found = part(bytes(damaged), *other.shape[:2], box)
        assert found is None or np.array_equal(found, box.of(other))


def test_the_border_of_a_part_needs_its_margin(monkeypatch):
    """Negative control: what libwebp makes of colours at a border is other than inside of the image."""
    image = textured(64, 64, 5)
    file, box = encoded(image, "WEBP", quality=90), Box(20, 22, 16, 16)
    whole = by_pillow(file)
    assert np.array_equal(part(file, 64, 64, box), box.of(whole))
    monkeypatch.setattr(webp, "_MARGIN", 0)
    assert not np.array_equal(part(file, 64, 64, box), box.of(whole))


def test_a_cut_file_gives_no_part():
    file = encoded(textured(48, 48, 3), "WEBP")
    assert part(file, 48, 48, Box(0, 0, 4, 4)) is not None
    for place in range(len(file)):
        assert part(file[:place], 48, 48, Box(0, 0, 4, 4)) is None
    assert part(file + b"more", 48, 48, Box(0, 0, 4, 4)) is None


def test_what_may_lie_otherwise_or_move_is_left_to_pillow():
    image = textured(20, 30, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(image, "WEBP", exif=exif, lossless=True)
    moving = encoded(image, "WEBP", save_all=True, append_images=[textured(20, 30, 4)])
    assert part(turned, 30, 20, Box(0, 0, 20, 20)) is None and part(moving, 20, 30, Box(0, 0, 20, 20)) is None
    assert np.array_equal(decode(turned), np.rot90(np.asarray(image), -1))
    with Image.open(io.BytesIO(moving)) as first:
        assert np.array_equal(decode(moving), np.asarray(first.convert("RGB")))
    followed = encoded(image, "WEBP", xmp=b"<x/>")  # libwebp would read on in it where the frame is damaged
    assert part(followed, 20, 30, Box(0, 0, 20, 30)) is None and np.array_equal(decode(followed), by_pillow(followed))
    assert part(encoded(image, "WEBP"), 20, 31, Box(0, 0, 20, 30)) is None  # another size than the index says
