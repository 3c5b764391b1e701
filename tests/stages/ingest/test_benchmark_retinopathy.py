"""Kaggle's photographs as VTAB has them: labels and splits of two csv, and the preparation step by step."""

import numpy as np
import pytest
from official_files import found_in, official, pixels, read_named
from PIL import Image, ImageDraw

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.ingest.benchmarks.opencv_like import disc, less_local_average, resize_by
from vitpipe.stages.ingest.benchmarks.retinopathy import btgraham


def eye(width: int, height: int, radius: int) -> Image.Image:
    """A bright disc with a bar on black."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    x, y = width // 2, height // 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(180, 90, 40))
    draw.rectangle((x - 5, y - radius // 2, x + 5, y + radius // 2), fill=(250, 200, 120))
    return image


def test_labels_and_splits(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,4\n")
    (tmp_path / "retinopathy_solution.csv").write_text("image,level,Usage\n1_left,2,Public\n1_right,3,Private\n")
    for name in ("train/10_left", "train/10_right", "test/1_left", "test/1_right"):
        eye(120, 100, 45).save(tmp_path / f"{name}.jpeg")
    images = {"train": 2, "validation": 1, "test": 1}
    source = official(monkeypatch, "diabetic_retinopathy", tmp_path, images)
    assert found_in(source) == {
        "train/10_left.jpeg": ("train", (0,)), "train/10_right.jpeg": ("train", (4,)),
        "test/1_left.jpeg": ("validation", (2,)), "test/1_right.jpeg": ("test", (3,)),
    }  # fmt: skip
    data = read_named(source, "train/10_left.jpeg")
    assert data[:2] == b"\xff\xd8" and pixels(data).shape == (540, 540, 3)
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,5\n")
    with pytest.raises(IntegrityError, match="a row says"):
        official(monkeypatch, "diabetic_retinopathy", tmp_path, images).listing()


def test_the_eye_comes_to_one_radius_and_its_rim_is_grey():
    small, large = (btgraham(np.asarray(eye(4 * r, 3 * r, r))) for r in (100, 200))
    assert small.shape == large.shape == (540, 540, 3)
    assert (small[0, 0] == 128).all() and (small[10, 530] == 128).all()
    assert np.abs(small.astype(int) - large).mean() < 8, "the same eye at twice the size"
    assert (small[270, 270] > 140).all(), "brighter than what is around it"


def test_a_photograph_without_an_eye_is_taken_by_its_height():
    assert btgraham(np.zeros((50, 60, 3), np.uint8)).shape == (540, 540, 3)


def test_resizing_is_bilinear_between_pixel_centres_without_antialias():
    image = np.arange(12, dtype=np.uint8).reshape(1, 12, 1).repeat(3, axis=2) * 20
    half = resize_by(image, 0.5)
    assert half[0, :, 0].tolist() == [10, 50, 90, 130, 170, 210]
    double = resize_by(image[:, :3], 2.0)
    assert double[0, :, 0].tolist() == [0, 5, 15, 25, 35, 40]
    assert (resize_by(image, 1.0) == image).all()


def test_a_flat_picture_less_its_average_is_grey_and_a_dot_stands_out():
    flat = np.full((80, 80, 3), 77, np.uint8)
    assert (less_local_average(flat, 10.0) == 128).all()
    flat[40, 40] = 90
    dotted = less_local_average(flat, 10.0)
    assert dotted[40, 40, 0] == 128 + 4 * 13 and (dotted[0] == 128).all()


def test_a_disc_lies_around_the_middle():
    found = disc(11, 13, 4)
    assert found.sum(axis=0)[6] == 9 and found.sum(axis=1)[5] == 9 and not found[0].any()
