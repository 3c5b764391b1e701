"""Crops have the distributions of torchvision and TensorFlow, and stay inside the image."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from vitpipe.stages.images.config import AugmentSettings, before_crop_px
from vitpipe.stages.images.crops import crop_tries, inception, random_resized, square
from vitpipe.stages.images.resize import resize, resize_small

SIZE = st.integers(1, 700)


@settings(deadline=None, max_examples=200)
@given(height=SIZE, width=SIZE, position=st.integers(0, 10**12), kind=st.sampled_from([random_resized, inception]))
def test_boxes_stay_inside(height, width, position, kind):
    (tries,) = crop_tries(np.array([position]), seed=0)
    box = kind(height, width, 0.08, tries)
    assert box.height >= 1 and box.width >= 1 and box.top >= 0 and box.left >= 0
    assert box.top + box.height <= height and box.left + box.width <= width


def test_random_resized_has_torchvisions_distribution():
    ours = np.array([random_resized(300, 400, 0.08, tries) for tries in crop_tries(np.arange(4000), seed=1)])
    image = torch.empty(3, 300, 400)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    spread = np.hypot(ours.std(axis=0), theirs.std(axis=0)) / np.sqrt(4000)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * spread).all()
    assert np.allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.06)


def test_a_padded_crop_shifts_evenly_and_brings_in_black():
    """All 49 shifts of at most 3 px come equally often; each is what torchvision's RandomCrop(padding=3) may give."""
    image = np.random.default_rng(0).integers(1, 256, (12, 12, 3), dtype=np.uint8)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
    places = {padded[y : y + 12, x : x + 12].tobytes(): (y, x) for y in range(7) for x in range(7)}
    draws = (next(tries)[2:] for tries in crop_tries(np.arange(4900), seed=1))
    counts = Counter(places[square(image, int(7 * top) - 3, int(7 * left) - 3, 12).tobytes()] for top, left in draws)
    assert len(counts) == 49 and min(counts.values()) > 60 and max(counts.values()) < 150


def test_a_border_without_its_crop_is_refused():
    with pytest.raises(ValueError, match="pad_px 3 has no meaning for crop 'none'"):
        AugmentSettings(crop="none", pad_px=3)


def test_inception_follows_tensorflow():
    """Width is the rounded height times an aspect of 0.75 to 1.33; heights are uniform at a fixed aspect."""
    boxes = np.array([inception(300, 400, 0.05, tries) for tries in crop_tries(np.arange(4000), seed=2)])
    aspect, area = boxes[:, 3] / boxes[:, 2], boxes[:, 2] * boxes[:, 3] / (300 * 400)
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    assert area.min() >= 0.05 and area.max() <= 1
    shortest, longest = np.sqrt(0.05 * 300 * 400 / aspect), np.minimum(300, 400 / aspect)
    place = (boxes[:, 2] - shortest) / (longest - shortest)
    assert abs(place.mean() - 0.5) < 0.02 and abs(place.std() - np.sqrt(1 / 12)) < 0.02


def test_resize_is_torchs_and_pillows():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    small = resize(image, 20, 30, antialias=True).astype(int)
    pillow = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(small - pillow).max() <= 1
    assert np.abs(resize(image, 20, 30, antialias=False).astype(int) - small).max() > 20
    assert resize(image, 50, 70, antialias=True) is image


def test_a_strip_stays_small():
    strip = np.zeros((20_000, 1, 3), dtype=np.uint8)
    assert resize_small(strip, 256, True).shape == (2048, 256, 3)
    assert resize_small(np.zeros((30, 40, 3), dtype=np.uint8), 15, True).shape == (15, 20, 3)


def test_sizes_before_the_crop_are_the_authors():
    assert [before_crop_px(px) for px in (224, 384, 32)] == [256, 448, 37]
