"""A part of a PNG has the pixels of the whole, by our inflate and filters as by Pillow; damage is found as it was."""

import random
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded
from PIL import Image

from tests.stages.images.jpegs import boxes, by_pillow, needs_extension, textured
from tests.stages.images.pngs import SIGNATURE, chunk, file_of, frame, pngs
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import decode, decode_part
from vitpipe.stages.images.header import BadImage, Header

pytestmark = needs_extension


def part(data: bytes, height: int, width: int, box: Box) -> np.ndarray | None:
    return decode_part(np.frombuffer(data, dtype=np.uint8), Header("png", width, height), box)


@settings(deadline=None, max_examples=120)
@given(data=st.data(), file=pngs())
@pytest.mark.filterwarnings("ignore")  # Pillow advises what to do with transparent palettes
def test_every_part_is_the_whole_cut(data, file):
    whole = by_pillow(file)
    assert whole is not None
    height, width = whole.shape[:2]
    assert np.array_equal(part(file, height, width, Box(0, 0, height, width)), whole)
    for _ in range(4):
        box = data.draw(boxes(height, width))
        assert np.array_equal(part(file, height, width, box), box.of(whole)), box


@settings(deadline=None, max_examples=120)
@given(file=pngs(40), data=st.data(), how=st.sampled_from(["cut", "flipped", "flipped, with its checksum"]))
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata in many words
def test_damage_is_refused_or_gives_pillows_pixels(file, data, how):
    damaged = bytearray(file)
    place = data.draw(st.integers(len(SIGNATURE) + 4, len(file) - 1))
    if how == "cut":
        del damaged[place:]
    else:
        damaged[place] ^= data.draw(st.integers(1, 255))
    if how.endswith("checksum"):
        damaged = _with_checksums(damaged)
    pixels, other = _verdict(bytes(damaged)), by_pillow(bytes(damaged))
    assert (pixels is None) == (other is None)
    if other is not None:
        assert np.array_equal(pixels, other)
        box = data.draw(boxes(*other.shape[:2]))
        found = part(bytes(damaged), *other.shape[:2], box)
        assert found is None or np.array_equal(found, box.of(other))


def test_damage_anywhere_gives_no_part_though_it_stands_behind_it():
    file = encoded(textured(60, 60, 1), "PNG")
    first = Box(0, 0, 2, 2)
    assert part(file, 60, 60, first) is not None
    for place in random.Random(0).sample(range(len(file)), 300):
        flipped = bytearray(file)
        flipped[place] ^= 1 << place % 8
        assert part(bytes(flipped), 60, 60, first) is None
        assert part(file[:place], 60, 60, first) is None


def test_nothing_below_the_part_is_inflated():
    image = textured(200, 50, 2)
    rows = np.insert(np.asarray(image).reshape(200, -1), 0, 0, axis=1).tobytes()
    stream = zlib.compress(rows, 0)
    file = file_of(2, 8, 50, 200, stream[: len(stream) // 2] + b"\xff" * 15_000)
    assert np.array_equal(part(file, 200, 50, Box(0, 0, 90, 50)), np.asarray(image)[:90])
    assert part(file, 200, 50, Box(0, 0, 110, 50)) is None
    assert _verdict(file) is None and by_pillow(file) is None


def test_large_rows_and_matches_over_the_whole_window_are_read():
    pixels = np.tile(np.random.default_rng(0).integers(0, 256, (1, 10_900, 3), dtype=np.uint8), (9, 1, 1))
    pixels[4:] += np.uint8(3)
    file = encoded(Image.fromarray(pixels), "PNG", compress_level=9)
    assert np.array_equal(part(file, 9, 10_900, Box(5, 10_000, 4, 800)), pixels[5:, 10_000:10_800])
    assert np.array_equal(decode(file), pixels)


def _odd() -> dict[str, bytes]:
    image = textured(20, 30, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream, lacking = zlib.compress(bytes(20 * 91)), zlib.compress(b"\0" + bytes(29) + b"\x09" + bytes(19 * 31))
    return {
        "turned": encoded(image, "PNG", exif=exif),
        "animated": encoded(image, "PNG", save_all=True, append_images=[textured(20, 30, 4)]),
        "interlaced": SIGNATURE + frame(1, 1, 2, 8, True) + chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND"),
        "a colour that the palette lacks": file_of(3, 8, 30, 20, lacking, before=chunk(b"PLTE", bytes(3))),
        "rows too many": file_of(2, 8, 30, 19, stream),
        "bytes behind the stream": file_of(2, 8, 30, 20, stream + b"more"),
        "a filter that there is not": file_of(2, 8, 30, 20, zlib.compress(b"\5" + bytes(20 * 91 - 1))),
        "an unknown chunk that matters": file_of(2, 8, 30, 20, stream, before=chunk(b"WHAT")),
        "an unfinished stream": file_of(2, 8, 30, 20, stream[:-5]),
    }  # fmt: skip


@pytest.mark.parametrize("name", _odd())
def test_what_is_odd_is_pillows_to_judge(name):
    file = _odd()[name]
    height, width = (1, 1) if name == "interlaced" else (19, 30) if name == "rows too many" else (20, 30)
    assert part(file, height, width, Box(0, 0, height, width)) is None
    ours, other = _verdict(file), by_pillow(file)
    assert (ours is None) == (other is None) and (ours is None or np.array_equal(ours, other))


def test_streams_of_noise_are_refused_and_end():
    rng = random.Random(0)
    for _ in range(400):
        stream = b"\x78\x9c" + rng.randbytes(rng.randrange(400))
        part(file_of(2, 8, 30, 20, stream), 20, 30, Box(0, 0, 20, 30))


def _verdict(data: bytes) -> np.ndarray | None:
    try:
        return decode(data)
    except BadImage:
        return None


def _with_checksums(data: bytearray) -> bytearray:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return data
