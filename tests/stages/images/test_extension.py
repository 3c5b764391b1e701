"""A part of a JPEG has the pixels of the whole, whichever decoder makes it; damage never becomes other pixels."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded, ingest, picture, write
from PIL import Image

from tests.stages.images.jpegs import boxes, by_pillow, jpeg, jpegs, needs_extension, textured
from vitpipe.stages.images import decoded_split, extension
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import decode, decode_part
from vitpipe.stages.images.header import BadImage, Header
from vitpipe.stages.images.train import TrainImages

pytestmark = needs_extension


def part(data: bytes, height: int, width: int, box: Box) -> np.ndarray | None:
    return decode_part(np.frombuffer(data, dtype=np.uint8), Header("jpg", width, height), box)


@settings(deadline=None, max_examples=400)
@given(data=st.data(), file=jpegs())
def test_every_part_is_the_whole_cut(data, file):
    whole = by_pillow(file)
    height, width = whole.shape[:2]
    assert np.array_equal(part(file, height, width, Box(0, 0, height, width)), whole)
    for _ in range(6):
        box = data.draw(boxes(height, width))
        assert np.array_equal(part(file, height, width, box), box.of(whole)), box


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_known_before_a_part_is_cut(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(textured(40, 60, 1), "JPEG", exif=exif)
    whole = by_pillow(file)
    assert np.array_equal(decode(file), whole)
    found = part(file, *whole.shape[:2], Box(3, 5, 20, 30))
    assert (found is None) == (2 <= orientation <= 8)
    assert found is None or np.array_equal(found, whole[3:23, 5:35])


@pytest.mark.parametrize("kind", ["CMYK", "webp", "png", "another size"])
def test_what_is_not_for_us_is_left_to_others(kind):
    image = picture(1, 30, 20)
    file = (
        encoded(image.convert("CMYK"), "JPEG")
        if kind == "CMYK"
        else encoded(image, kind.replace("another size", "jpeg"))
    )
    assert part(file, 20 + (kind == "another size"), 30, Box(0, 0, 20, 30)) is None
    assert decode(file).shape == (20, 30, 3)


@settings(deadline=None, max_examples=400)
@given(file=jpegs(60), data=st.data(), cut=st.booleans())
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata in many words
def test_damage_is_refused_or_gives_pillows_pixels(file, data, cut):
    damaged = bytearray(file)
    place = data.draw(st.integers(2, len(file) - 1))
    if cut:
        del damaged[place:]
    else:
        damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        pixels = decode(bytes(damaged))
    except BadImage:
        pixels = None
    other = by_pillow(bytes(damaged))
    assert (pixels is None) == (other is None)
    if other is None:
        return
    assert np.array_equal(pixels, other)
    box = data.draw(boxes(*other.shape[:2]))
    found = part(bytes(damaged), *other.shape[:2], box)
    assert found is None or np.array_equal(found, box.of(other))


def test_a_cut_file_gives_no_part_at_any_place():
    file = jpeg(textured(48, 48, 3), restart_marker_rows=1)
    assert part(file, 48, 48, Box(0, 0, 4, 4)) is not None
    for place in range(len(file)):
        assert part(file[:place], 48, 48, Box(0, 0, 4, 4)) is None


def test_no_segment_is_read_that_the_part_does_not_need():
    image = textured(160, 160, 4)
    file = bytearray(jpeg(image, restart_marker_blocks=5, quality=90))
    whole = decode(bytes(file))
    box = Box(72, 90, 20, 30)  # rows 4 to 6 of ten, the right half
    marks = [at for at in range(len(file) - 1) if file[at] == 0xFF and 0xD0 <= file[at + 1] <= 0xD7]
    assert len(marks) == 19  # two segments a row
    assert np.array_equal(part(bytes(file), 160, 160, box), box.of(whole))
    needed = {2 * row + 1 for row in range(4, 6)}
    for number, (start, end) in enumerate(zip(marks, [*marks[1:], len(file) - 2], strict=True), start=1):
        if number not in needed:
            file[start + 2 : end] = bytes(end - start - 2)
    assert np.array_equal(part(bytes(file), 160, 160, box), box.of(whole))
    assert part(bytes(file), 160, 160, Box(0, 0, 40, 40)) is None  # the damage is there


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """30 JPEGs of many kinds, ingested."""
    root = tmp_path_factory.mktemp("snapshots")
    for number in range(30):
        image = textured(50 + 7 * number, 200 - 5 * number, number)
        options = [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}][number % 4]
        file = jpeg(image.convert("L") if number % 7 == 0 else image, quality=60 + number, **options)
        write(root / f"source/c{number % 2}/{number}.jpg", file)
    return ingest(root, {"source": {"kind": "folder", "root": str(root / "source")}})


@pytest.mark.parametrize("crop", ["random_resized", "inception", "resmall"])
def test_batches_are_the_same_without_the_extension(snapshots, tmp_path, monkeypatch, crop):
    monkeypatch.setattr(decoded_split, "DECODED_BYTES", 0)
    train = TrainImages(snapshots, "train", 32, AugmentSettings(crop=crop), 0, tmp_path)
    quick = train.micro_batch(0, 90)
    monkeypatch.setattr(extension, "loaded_extension", lambda: None)
    assert torch.equal(train.micro_batch(0, 90).images_BCHW, quick.images_BCHW)


def test_a_crop_decodes_no_whole_image(snapshots, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_split, "DECODED_BYTES", 0)
    train = TrainImages(snapshots, "train", 32, AugmentSettings(), 0, tmp_path)
    monkeypatch.setattr(decoded_split.Split, "pixels", lambda self, number: pytest.fail("decoded whole"))
    train.micro_batch(0, 60)


def test_what_is_missing_is_said_once(monkeypatch, caplog):
    extension.loaded_extension.cache_clear()
    monkeypatch.setattr(extension, "compiled_extension", lambda: None)
    assert extension.loaded_extension() is None and extension.loaded_extension() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "libjpeg62-turbo-dev" in caplog.text
    extension.loaded_extension.cache_clear()


def test_a_batch_holds_one_decoded_image_at_a_time(tmp_path):
    for number in range(40):
        write(tmp_path / f"source/c{number % 2}/{number}.jpg", jpeg(textured(300, 400, number)))
    shards = ingest(tmp_path, {"source": {"kind": "folder", "root": str(tmp_path / "source")}})
    with mock.patch.object(decoded_split, "DECODED_BYTES", 0):
        train = TrainImages(shards, "train", 32, AugmentSettings(crop="resmall"), 0, tmp_path / "cache")
    train.micro_batch(0, 40)
    tracemalloc.start()
    try:
        train.micro_batch(40, 40)
        assert tracemalloc.get_traced_memory()[1] < 3 * 300 * 400 * 3
    finally:
        tracemalloc.stop()
