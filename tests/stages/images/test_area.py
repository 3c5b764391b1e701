"""Resizing by area is TensorFlow's, to the pixel, and gets to evaluations and crops under one name."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from sklearn.datasets import load_sample_images

from tests.stages.images.originals.resize_small_of_big_vision import pictures
from vitpipe.stages.images.area import resize_area, small_sides
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.evaluate import EvalImages, fitted
from vitpipe.stages.images.resize import centre, resize, resize_small, resize_small_by_area
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.preparation import EvalResize, EvalWay, as_tested

ORIGINAL = json.loads((Path(__file__).parent / "originals" / "resize_small_of_big_vision.json").read_text())
"""Sides and digests of what big_vision's own function makes; the script beside it made them."""
PHOTOGRAPHS = Path(load_sample_images().filenames[0]).parent


def found(pixels, side):
    small = resize_area(pixels, *small_sides(np.array(pixels.shape[:2]), side).tolist())
    return f"{small.shape[0]} x {small.shape[1]} {hashlib.sha256(small.tobytes()).hexdigest()[:16]}"


def test_every_size_has_big_visions_pixels():
    assert {
        f"{name}, {side}": found(pixels, side) for name, pixels in pictures(PHOTOGRAPHS) for side in (256, 224, 37, 32)
    } == ORIGINAL


def test_the_mean_of_whole_pixels_is_what_it_should_be_and_bilinear_is_another():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    means = pixels.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_area(pixels, 16, 24) - np.floor(means)).max() <= 1
    assert np.abs(resize(pixels, 16, 24, True).astype(int) - resize_area(pixels, 16, 24)).max() > 10  # negative control
    assert resize_area(pixels, 64, 96) is pixels


def test_a_strip_stays_small_and_an_evaluation_cuts_the_middle():
    assert resize_small_by_area(np.zeros((20_000, 1, 3), dtype=np.uint8), 256).shape == (2048, 256, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    wanted = centre(resize_area(pixels, 256, 341), 224, 224)
    assert np.array_equal(fitted(pixels, 224, EvalWay("area_small")), wanted)
    smoothed = fitted(pixels, 64, EvalWay("resmall_crop", 73, antialias=True))
    assert np.array_equal(smoothed, centre(resize_small(pixels, 73, True), 64, 64))
    assert not np.array_equal(smoothed, fitted(pixels, 64, EvalWay("resmall_crop", 73, antialias=False)))


def test_two_names_of_one_way_are_kept_as_one():
    adapter = TypeAdapter(EvalResize)
    assert adapter.validate_python("resize_small") == adapter.validate_python("resmall_crop") == "resmall_crop"
    assert "resize_small" in adapter.json_schema()["enum"]
    with pytest.raises(ValueError, match="'area_small'"):
        adapter.validate_python("area")


def test_a_scores_protocol_is_read_back_and_grows_with_the_image():
    protocol = {"eval_resize": "resmall_crop", "crop_px": 448, "antialias": False, "image_px": 384}
    assert as_tested(protocol) == EvalWay("resmall_crop", 448, False)
    assert as_tested(protocol, 192) == EvalWay("resmall_crop", 224, False)
    assert as_tested({}) == EvalWay("squash")


def test_training_crops_and_evaluations_take_it_at_any_number_of_ranks(photos, tmp_path):
    settings = AugmentSettings(crop="area_small", resize_px=14)
    train = TrainImages(photos, "train", 12, settings, 0, tmp_path / "cache")
    whole = train.micro_batch(0, 8).images_BCHW
    assert (train.micro_batch(0, 3).images_BCHW == whole[:3]).all()
    other = TrainImages(photos, "train", 12, settings.model_copy(update={"crop": "resmall"}), 0, tmp_path / "cache")
    assert not (other.micro_batch(0, 8).images_BCHW == whole).all()
    one = [batch.images_BCHW for batch in EvalImages(photos, "test", 12, "area_small", tmp_path).batches(100)]
    two = [
        batch.images_BCHW
        for rank in (0, 1)
        for batch in EvalImages(photos, "test", 12, "area_small", tmp_path).batches(100, rank, 2)
    ]
    assert (np.concatenate(one) == np.concatenate(two)).all()
